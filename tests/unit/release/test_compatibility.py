"""Which tool reads which file: every cell of the table, measured on tiny models by the tools' own rules."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.compatibility import table
from sdlora.lora.formats.compatibility import (
    FAMILIES,
    FOLDER_TOOLS,
    KOHYA_TOOLS,
    METHODS,
    TEXT_FAMILIES,
    TOOLS,
    File,
    misreadings,
    support,
)
from sdlora.release.exporting import export_adapter
from tests import readers
from tests.unit.release.trained import Trained

READERS = {
    "comfyui": readers.read_by_comfyui,
    "forge": readers.read_by_forge,
    "a1111": readers.read_by_a1111,
    "sd-scripts": readers.read_by_sd_scripts,
    "lycoris": readers.read_by_lycoris,
}


def judge(reading, trained):
    if reading.refused:
        return "refused"
    changes = {key: change for key, change in reading.changes.items() if change.abs().max() > 1e-4}
    if not changes:
        return "nothing"
    same = all(
        key in trained
        and torch.allclose(change, trained[key], atol=2e-4 * max(1.0, change.abs().max().item()), rtol=1e-3)
        for key, change in changes.items()
    )
    return ("exact" if changes.keys() == trained.keys() else "part") if same else "wrong"


def measured(base, method, text):
    """(tool, file) -> how the tool reads the file."""
    adapter, trained = base.make(method, text)
    assert len(trained) > 10
    files = {"kohya": adapter.folder / "style.safetensors"}
    if method == "dora":
        path = base.home / f"comfyui-{text}.safetensors"
        files["comfyui"] = export_adapter(adapter, path, reader="comfyui", base=base.base)
    found = {}
    for file, path in files.items():
        tensors = load_file(path)
        found |= {(tool, file): judge(READERS[tool](tensors, base.before), trained) for tool in KOHYA_TOOLS}
    found["diffusers", "folder"] = judge(base.in_diffusers(adapter.folder), trained)
    folder = export_adapter(adapter, base.home / f"folder-{method}-{text}")
    found["peft", "folder"] = judge(base.in_peft(folder), trained)
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_every_tool_reads_every_file_as_the_table_says(name, tmp_path):
    base = Trained(name, tmp_path)
    for text in (False, True) if name in TEXT_FAMILIES else (False,):
        # The files of rsLoRA and PiSSA are those of a LoRA; with text encoders one family shows it.
        for method in METHODS if not text or name == "sd1" else ("lora", "dora", "loha", "lokr"):
            found = measured(base, method, text)
            assert found == {cell: support(cell[0], method, name, text, cell[1]) for cell in found}, (method, text)


def test_the_page_shows_the_table():
    page = Path("docs/compatibility.md").read_text()
    assert table() in page, "python benchmarks/compatibility.py writes the table into the page"


def test_a_file_is_said_to_be_misread_by_the_tools_that_misread_it_silently():
    assert misreadings("lora", "sdxl", True, "kohya") == []
    assert misreadings("dora", "sd1", False, "kohya") == [
        (
            "ComfyUI, Forge, A1111 and sd-scripts: this DoRA is read wrongly, without an error. "
            "For ComfyUI and Forge export with `--for comfyui`. "
            "For A1111 and sd-scripts export the model with `--merged`."
        )
    ]
    assert misreadings("dora", "sd1", False, "comfyui") == [
        (
            "A1111, sd-scripts and LyCORIS: this DoRA is read wrongly, without an error. "
            "For LyCORIS export with `--for lycoris`. For A1111 and sd-scripts export the model with `--merged`."
        )
    ]
    assert misreadings("loha", "flux", False, "kohya") == [
        (
            "sd-scripts and LyCORIS: nothing of this LoHa is loaded, without an error. "
            "For sd-scripts and LyCORIS export the model with `--merged`."
        )
    ]
    for method, family, text, file in itertools.product(METHODS, FAMILIES, (False, True), get_args(File)):
        said = " ".join(misreadings(method, family, text, file))
        for tool in FOLDER_TOOLS if file == "folder" else KOHYA_TOOLS:
            silent = support(tool, method, family, text, file) in ("wrong", "part", "nothing")
            assert (TOOLS[tool] in said.replace("folder with diffusers", "")) == silent
