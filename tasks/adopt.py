"""Conversion of an adapter that was made elsewhere, which is the candidate of the flow `adopt`."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from sdlora.config import ResolvedConfig
from sdlora.core.errors import WeightsError
from sdlora.core.files import file_sha256
from sdlora.core.quoting import escaped
from sdlora.core.refs import AdapterRef, BaseModelRef
from sdlora.records.adoption import Adoption, write_adoption
from tasks.results import RunRef
from tasks.run_log import log_text, run_log

_MAX_TEXT_CHARS = 300  # of a name or a reason that a person typed; lists and descriptions show it


@task(name="identify file", persist_result=False)
def identify_file(file: Path, base: BaseModelRef, name: str, home: Path) -> RunRef:
    """Name the run by the digest of file and base model, so that the same file finds its version.

    Raises:
        WeightsError: the file is missing, damaged, pickled, or no adapter.
    """
    from sdlora.lora.foreign import conversion_digest
    from sdlora.lora.formats.inspect import inspect_adapter

    if file.is_dir():
        raise WeightsError(f"{file} is a folder. Name the .safetensors file in it.")
    facts = inspect_adapter(file)
    digest = conversion_digest(base, file_sha256(file))
    run_log().info("%s is a %s in the layout of %s; run %s", log_text(file.name), facts.method, facts.layout, digest)
    return RunRef(digest=digest, folder=home / "runs" / name / digest[:16])


@task(name="convert adapter", persist_result=False)
def convert_file(file: Path, base: BaseModelRef, config: ResolvedConfig, run: RunRef, who: str, why: str) -> AdapterRef:
    """Compare the file's layers with the base's, and write its adapter into the folder of the run.

    Raises:
        BaseMismatchError: the file was made for another base model.
        WeightsError: the file is damaged, or of a method that cannot be converted.
        StorageError: the disk is full or not writable.
    """
    from sdlora.lora.foreign import convert_adapter

    folder = run.folder / "adapter"
    candidate = _converted(folder, base, run) or convert_adapter(file, base, folder, config.name)
    if candidate.run_digest != run.digest:
        raise WeightsError(f"{file} changed while it was read. Type the command again.")
    adoption = Adoption(
        file=escaped(file.name),
        sha256=file_sha256(file),
        who=escaped(who, _MAX_TEXT_CHARS),
        why=escaped(why, _MAX_TEXT_CHARS),
    )
    write_adoption(run.folder, adoption)
    run_log().info("%s", log_text(adoption.in_words()))
    return candidate


def with_settings_of(candidate: AdapterRef, config: ResolvedConfig) -> ResolvedConfig:
    """Return the settings with the candidate's own method and rank, which its file decided."""
    from sdlora.lora.manifest import read_manifest

    return config.model_copy(update={"lora": read_manifest(candidate.folder).lora})


def _converted(folder: Path, base: BaseModelRef, run: RunRef) -> AdapterRef | None:
    """Return the adapter of an interrupted run, if it is whole."""
    from sdlora.lora.load import open_adapter

    try:
        adapter = open_adapter(folder, base)
    except WeightsError:
        return None
    return adapter if adapter.run_digest == run.digest else None
