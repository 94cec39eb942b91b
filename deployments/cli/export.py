"""Command `export`: adapters as files for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deployments.cli.choosing import line_of_adapters
from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption, StyleOption
from deployments.cli.terminal import console, error_console, plain

if TYPE_CHECKING:
    from sdlora.core.refs import AdapterRef, BaseModelRef


def export(
    out: Annotated[Path, typer.Argument(help="A new folder (diffusers), or a .safetensors file (ComfyUI, A1111).")],
    home: HomeOption = DEFAULT_HOME,
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder of an adapter, a run or a model, instead of a version.")
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Export this version; by default the champion.")] = None,
    style: StyleOption = None,
    merged: Annotated[bool, typer.Option("--merged", help="The whole model with the adapter in its weights.")] = False,
    dtype: Annotated[Literal["fp32", "fp16", "bf16"], typer.Option(help="Precision of the tensors.")] = "fp32",
    reader: Annotated[
        Literal["lycoris", "comfyui"],
        typer.Option("--for", help="Whose rule a DoRA is written for in a single file; Forge's is comfyui."),
    ] = "lycoris",
    base: Annotated[
        str | None, typer.Option(help="With --from: the adapter's base model; by default the embedded one.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="With --base FILE.safetensors: see base_model.layout.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write an adapter, or the model with the adapter merged in, for other tools. Each file is read back and compared.

    Tools that would read the file wrongly without an error are named, with the remedy.

    Example: [bold]sdlora export style-fp16.safetensors --dtype fp16[/], [bold]sdlora export model/ --merged[/]
    """
    if source is not None and (version is not None or style is not None):
        raise typer.BadParameter("choose either --from, or --version and --style")
    if source is None and base is not None:
        raise typer.BadParameter("--base is used with --from; a version knows its base")
    with error_console.status("Reading, writing and reading back ..."):
        from sdlora.lora.formats.compatibility import misreadings_of
        from sdlora.release.exporting import export_adapter, export_model

        notes: list[str] = []
        if source is not None:
            adapter, model = _from_folder(source, base, layout, home, base_is_needed=merged or reader == "comfyui")
        else:
            adapter, model = _from_registry(version, line_of_adapters(home, style), home)
        if merged or adapter is None:
            assert model is not None
            path = export_model(model, adapter, out, dtype)
        else:
            path = export_adapter(adapter, out, dtype, reader, model)
            notes = misreadings_of(adapter.folder, out, reader)
            if model is None:
                notes.append(
                    f"The layers were not compared with those of the base model {adapter.base_digest[:12]}: name it "
                    "with --base to have them compared."
                )
    if as_json:
        print_json({"path": str(path.resolve()), "notes": notes})
        return
    console.print(plain(path), soft_wrap=True)
    for note in notes:
        error_console.print(plain(note), soft_wrap=True)


def _from_folder(
    source: Path, base: str | None, layout: str | None, home: Path, base_is_needed: bool
) -> tuple[AdapterRef | None, BaseModelRef | None]:
    """Open an adapter's folder, a run's or release's folder with an adapter inside, or a diffusers model.

    The base is None if it is not named, not needed, and not the embedded one.
    """
    from sdlora.core.errors import WeightsError
    from sdlora.lora.load import open_adapter
    from sdlora.lora.manifest import MANIFEST_FILE
    from sdlora.models.config import BaseModelConfig
    from sdlora.models.files.sources import load_base_model

    if (source / "model_index.json").is_file():
        return None, load_base_model(BaseModelConfig(source=str(source)), home)
    folder = next((path for path in (source, source / "adapter") if (path / MANIFEST_FILE).is_file()), None)
    if folder is None:
        raise WeightsError(f"--from: {source} holds neither {MANIFEST_FILE} nor adapter/{MANIFEST_FILE}.")
    config = BaseModelConfig(source=base or "embedded", layout=layout)
    adapter, model = open_adapter(folder), load_base_model(config, home)
    known = base is not None or base_is_needed or model.digest == adapter.base_digest
    return adapter, model if known else None


def _from_registry(version: int | None, name: str | None, home: Path) -> tuple[AdapterRef | None, BaseModelRef]:
    from deployments.local_run import prepare_environment

    prepare_environment(home)
    from tasks.drawing import find_model

    model = find_model(str(version) if version is not None else "champion", name, home)
    return model.adapter, model.base
