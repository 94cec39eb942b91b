"""A promoted adapter in the folder where a drawing tool looks."""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdlora.core.errors import StorageError
from sdlora.core.tensor_header import read_header
from sdlora.lora.attach import attach_lora
from sdlora.lora.formats.inspect import inspect_adapter
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.release.config import ExportConfig
from sdlora.release.lora_folder import Champion, export_champion
from tests.settings import filled_lora
from tests.tiny import tiny_base_model
from tests.unit.lora.perturb import perturb_adapter
from tests.unit.lora.test_files import save

CONFIG = ExportConfig()


@pytest.fixture(scope="module")
def versions(tmp_path_factory) -> tuple[Champion, Champion]:
    """Two versions of the style "robots"."""
    home = tmp_path_factory.mktemp("versions")
    base = load_base_model(BaseModelConfig(source=str(tiny_base_model(home / "base"))), home)

    def version(number):
        lora = filled_lora(rank=2, alpha=3)
        denoiser = perturb_adapter(attach_lora(parts.load_denoiser(base), lora), seed=number)
        return Champion("robots", number, save(home / str(number), denoiser, lora, base), base)

    return version(1), version(2)


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "loras"
    path.mkdir()
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_champion_comes_as_the_tool_reads_it_with_its_version_in_the_metadata(versions, folder):
    first, _ = versions
    assert export_champion(first, folder, CONFIG)
    assert names(folder) == ["robots.safetensors"]
    written, trained = folder / "robots.safetensors", first.adapter.folder / "style.safetensors"
    there, expected = load_file(written), load_file(trained)
    assert there.keys() == expected.keys()
    assert all(torch.equal(there[key], tensor) for key, tensor in expected.items())
    metadata = read_header(written).metadata
    assert (metadata["sdlora.style"], metadata["sdlora.version"]) == ("robots", "1")
    assert metadata["sdlora.adapter_digest"] == first.adapter.digest
    assert metadata["ss_network_dim"] == "2"
    shown = inspect_adapter(written).origin
    assert (shown["style"], shown["version"]) == ("robots", "1")


def test_the_champion_before_is_kept_under_a_name_that_tools_do_not_list(versions, folder):
    first, second = versions
    export_champion(first, folder, CONFIG)
    before = (folder / "robots.safetensors").read_bytes()
    assert export_champion(second, folder, CONFIG)
    assert names(folder) == ["robots.previous", "robots.safetensors"]
    assert (folder / "robots.previous").read_bytes() == before
    assert read_header(folder / "robots.safetensors").metadata["sdlora.version"] == "2"
    assert export_champion(second, folder, ExportConfig(dtype="fp16"))  # the same champion: the one before stays
    assert (folder / "robots.previous").read_bytes() == before
    assert set(read_header(folder / "robots.safetensors").dtypes.values()) == {"F16"}
    assert export_champion(first, folder, CONFIG)  # back to the version before
    assert (folder / "robots.safetensors").read_bytes() == before
    assert read_header(folder / "robots.previous").metadata["sdlora.version"] == "2"


def test_a_champion_that_is_there_is_not_written_again(versions, folder):
    export_champion(versions[0], folder, CONFIG)
    before = (folder / "robots.safetensors").stat()
    assert not export_champion(versions[0], folder, CONFIG)
    after = (folder / "robots.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert export_champion(replace(versions[0], number=3), folder, CONFIG)
    assert names(folder) == ["robots.safetensors"]  # the same adapter as another version


@pytest.mark.parametrize("name", ["robots.safetensors", "robots.previous"])
@pytest.mark.parametrize("found", ["text", "link to nothing", "another style's", "another program's"])
def test_a_file_of_somebody_else_is_never_replaced(name, found, versions, folder, tmp_path):
    first, second = versions
    export_champion(first, folder, CONFIG)
    theirs = folder / name
    theirs.unlink(missing_ok=True)
    if found == "text":
        theirs.write_text("mine")
    elif found == "link to nothing":
        theirs.symlink_to(tmp_path / "away")
    elif found == "another style's":
        export_champion(replace(first, style="monsters"), folder, CONFIG)
        (folder / "monsters.safetensors").rename(theirs)
    else:
        theirs.write_bytes((first.adapter.folder / "style.safetensors").read_bytes())
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.exists()}
    reason = "of the style 'monsters'" if found == "another style's" else "no file that `sdlora run` has written"
    message = rf"^export\.on_promote: {re.escape(str(theirs))} is {reason}.*another folder.*version is not affected"
    with pytest.raises(StorageError, match=message):
        export_champion(second, folder, CONFIG)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.exists()} == before
    assert theirs.is_symlink() == (found == "link to nothing")


def test_a_missing_folder_is_named_and_not_made(versions, tmp_path):
    away = tmp_path / "share" / "loras"
    with pytest.raises(
        StorageError, match=rf"^export\.on_promote: {re.escape(str(away))} does not exist\. Make or mou"
    ):
        export_champion(versions[0], away, CONFIG)
    assert not away.parent.exists()
    away.parent.write_text("a file")
    for path, found in ((away.parent, "is not a folder"), (away, "(does not exist|cannot be read)")):
        with pytest.raises(StorageError, match=rf"{re.escape(str(path))} {found}"):
            export_champion(versions[0], path, CONFIG)


@pytest.mark.parametrize("moment", ["writing", "flushing"])
def test_a_full_disk_leaves_the_champion_before_in_place(moment, versions, folder, monkeypatch):
    first, second = versions
    export_champion(first, folder, CONFIG)
    before = (folder / "robots.safetensors").read_bytes()
    listed = []

    def full(*_: object) -> None:
        listed.append([path.name for path in folder.iterdir() if path.suffix == ".safetensors"])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        target = "sdlora.core.files.flush" if moment == "flushing" else "shutil.copyfile"
        patch.setattr(target, full)
        with pytest.raises(StorageError, match=r"export\.on_promote: .*robots\.safetensors cannot be .*No space left"):
            export_champion(second, folder, CONFIG)
    assert listed[0] == ["robots.safetensors"]  # no list of a tool shows half a file
    assert (folder / "robots.safetensors").read_bytes() == before
    assert names(folder) == ["robots.safetensors"]
    assert export_champion(second, folder, CONFIG)
