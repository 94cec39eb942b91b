"""Files of base models: those that sdlora wrote, and those whose digest it remembers from an earlier run."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from sdlora.integrity.copies import Copy, digest_check
from sdlora.models.files.digests import DIGESTS_FILE, folder_digest, recorded_digests
from sdlora.models.files.sources import EMBEDDED

_CONVERTED = re.compile(r"[0-9a-f]{16}")


def base_copies(home: Path, known: Collection[str]) -> Iterator[Copy]:
    """List the files of base models.

    Args:
        known: digests of base models that adapters were trained on.
    """
    written = [folder for pattern in ("bases/*/", "bases/*/model/", "runs/*/*/model/") for folder in home.glob(pattern)]
    written = sorted(folder for folder in written if (folder / "model_index.json").is_file())
    for folder in written:
        digests, what = recorded_digests(folder), f"base model {folder.relative_to(home)}"
        remedy = _remedy(home, folder)
        if digests is None:
            path = folder / DIGESTS_FILE
            yield Copy("base model", f"digests of {what}", path, str(path), lambda _: False, remedy)
        for name, digest in sorted((digests or {}).items()):
            yield Copy("base model", f"{name} of {what}", folder / name, digest, digest_check(digest), remedy)
    yield from _remembered(home, set(written), known)


def _remembered(home: Path, written: Collection[Path], known: Collection[str]) -> Iterator[Copy]:
    """List files of other base models whose size and time are those of the remembered digest."""
    path = home / "cache" / "file-digests.json"
    try:
        entries = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # missing, or listed as a damaged cache file
        return
    resolved = {folder.resolve() for folder in written}
    for name, entry in sorted(entries.items()):
        file = Path(name)
        if resolved.isdisjoint(file.parents) and _is_unchanged(file, entry):
            digest = str(entry[2])
            folder = next((parent for parent in file.parents if (parent / "model_index.json").is_file()), file.parent)
            if not digest_check(digest)(file) and folder_digest(folder) in known:
                what = f"remembered digest of {file}"  # the file is right, its digest is wrong
                yield Copy("cache", what, path, str(path), lambda _: False, "", is_cache=True)
            else:
                remedy = _remedy(home, folder)
                yield Copy("base model", f"{file.name} of {folder}", file, digest, digest_check(digest), remedy)


def _is_unchanged(file: Path, entry: object) -> bool:
    try:
        stat = file.stat()
    except OSError:
        return False
    return isinstance(entry, list) and len(entry) == 3 and entry[:2] == [stat.st_size, stat.st_mtime_ns]


def _remedy(home: Path, folder: Path) -> str:
    if folder == EMBEDDED:
        return "Install sdlora again."
    if home not in folder.parents:
        return f"Copy {folder} again from where it came from."
    if folder.name == "model" and folder.parent.parent.name == "bases":
        return f"Delete {folder} and type `sdlora pretrain` again; it continues from the last checkpoints."
    if folder.name == "model":
        return f"Train it again: delete {folder.parent} and type the same command."
    if _CONVERTED.fullmatch(folder.name):
        return f"Delete {folder}; the next run converts the checkpoint again."
    return f"Delete {folder}; the next run downloads it again."
