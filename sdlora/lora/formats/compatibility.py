"""Table of docs/compatibility.md: which tool reads which adapter file.

`tests/unit/release/test_compatibility.py` measures every entry on small models, by each tool's own rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from safetensors import safe_open

from sdlora.core.refs import ADAPTER_WEIGHTS
from sdlora.lora.config import Method
from sdlora.lora.manifest import read_manifest
from sdlora.models.families.layouts import FamilyName

if TYPE_CHECKING:
    from sdlora.lora.formats.reading import Reader  # imports torch

Tool = Literal["diffusers", "peft", "comfyui", "forge", "a1111", "sd-scripts", "lycoris"]
File = Literal["folder", "kohya", "comfyui"]
"""The diffusers file with peft's beside it, the kohya file, and the one of `sdlora export --for comfyui`."""
Support = Literal["exact", "refused", "wrong", "part", "nothing"]
"""Result of a tool that reads a file.

exact: every layer changes as it was trained to.
refused: the tool says that it does not load the file.
wrong: some layers change otherwise, and the tool does not say so.
part: of denoiser and text encoders one is left out, and the tool does not say so.
nothing: no layer changes, and the tool does not say so.
"""

TOOLS: Mapping[Tool, str] = {
    "diffusers": "diffusers",
    "peft": "peft",
    "comfyui": "ComfyUI",
    "forge": "Forge",
    "a1111": "A1111",
    "sd-scripts": "sd-scripts",
    "lycoris": "LyCORIS",
}
METHODS: Mapping[Method, str] = {
    "lora": "LoRA",
    "rslora": "rsLoRA",
    "pissa": "PiSSA",
    "dora": "DoRA",
    "loha": "LoHa",
    "lokr": "LoKr",
}
FAMILIES: Mapping[FamilyName, str] = {"sd1": "SD 1", "sd2": "SD 2", "sdxl": "XL", "sd3": "SD 3", "flux": "FLUX.1"}
TEXT_FAMILIES: tuple[FamilyName, ...] = ("sd1", "sd2", "sdxl")
"""The families whose text encoders adapters can change."""
FOLDER_TOOLS: tuple[Tool, ...] = ("diffusers", "peft")
KOHYA_TOOLS: tuple[Tool, ...] = ("comfyui", "forge", "a1111", "sd-scripts", "lycoris")

NOTE_FILE = "README.txt"
_ARCHITECTURES: Mapping[str, FamilyName] = {
    "stable-diffusion-v1": "sd1",
    "stable-diffusion-v2": "sd2",
    "stable-diffusion-xl": "sdxl",
    "stable-diffusion-3": "sd3",
    "flux": "flux",
}
_PLAIN: tuple[Method, ...] = ("lora", "rslora", "pissa")
_DORA_FILES: Mapping[Tool, File] = {"comfyui": "comfyui", "forge": "comfyui", "lycoris": "kohya"}
_TRANSFORMERS: tuple[FamilyName, ...] = ("sd3", "flux")


def note(kohya_file: str | None) -> str:
    """The text of `NOTE_FILE`: which file of the folder is for which tool.

    Args:
        kohya_file: its name, None for an exported folder with peft's files.
    """
    lines = [f"{ADAPTER_WEIGHTS}: for diffusers and sdlora. Not for ComfyUI and Forge, which do not read its alpha."]
    if kohya_file:
        lines.append(f"{kohya_file}: for {', '.join(TOOLS[tool] for tool in KOHYA_TOOLS)}.")
    else:
        lines.append("adapter_model.safetensors, adapter_config.json: for peft, without text encoders.")
        lines.append("For ComfyUI, Forge and A1111: sdlora export FILE.safetensors")
    return "\n".join([*lines, "Methods that a tool does not read: docs/compatibility.md of sdlora."]) + "\n"


def support(tool: Tool, method: Method, family: FamilyName, text: bool = False, file: File | None = None) -> Support:
    """Find what a tool makes of a file.

    Args:
        tool: the reader.
        method: the denoiser's; text encoders always have a plain LoRA.
        family: the base model's.
        text: whether text encoders have an adapter, too.
        file: by default the one that is meant for the tool.
    """
    if tool == "diffusers":
        return "refused" if method in ("loha", "lokr") else "exact"
    if tool == "peft":
        return "part" if text else "exact"
    if tool == "a1111" and family in _TRANSFORMERS:
        return "refused"
    if method in _PLAIN:
        return "exact"
    if tool == "forge" and family == "sd3":
        return "refused"
    if tool in ("sd-scripts", "lycoris") and family in _TRANSFORMERS:
        return "nothing"  # the layers of these files have OneTrainer's names
    if method == "dora":
        right = _DORA_FILES.get(tool)
        return "exact" if right is not None and file in (None, right) else "wrong"
    if tool == "sd-scripts":
        return "part" if text else "nothing"
    return "exact"


def readers_of(method: Method, family: FamilyName, text: bool, file: File) -> list[str]:
    """Names of the tools that read such a file exactly."""
    tools = FOLDER_TOOLS if file == "folder" else KOHYA_TOOLS
    return [TOOLS[tool] for tool in tools if support(tool, method, family, text, file) == "exact"]


def misreadings(method: Method, family: FamilyName, text: bool, file: File) -> list[str]:
    """Sentences about the tools that read such a file otherwise than it was trained and do not say so."""
    tools = FOLDER_TOOLS if file == "folder" else KOHYA_TOOLS
    found: dict[Support, list[str]] = {}
    for tool in tools:
        found.setdefault(support(tool, method, family, text, file), []).append(TOOLS[tool])
    title = METHODS[method]
    texts: dict[Support, str] = {
        "wrong": f"this {title} is read wrongly",
        "part": "the text encoders are left out" if file == "folder" else "the text encoders alone are loaded",
        "nothing": f"nothing of this {title} is loaded",
    }
    return [
        f"{_listed(names)}: {texts[kind]}, without an error. {_remedy(method, family, file, names)}"
        for kind in get_args(Support)
        if kind in texts and (names := found.get(kind))
    ]


def misreadings_of(folder: Path, out: Path, reader: Reader) -> list[str]:
    """Sentences about the tools that misread an exported file or folder without an error.

    Args:
        folder: the adapter's.
        out: the `.safetensors` file in kohya's format, or the folder.
        reader: whose rule a DoRA was written for.

    Raises:
        WeightsError: `adapter.json` is missing or damaged.
    """
    manifest = read_manifest(folder)
    with safe_open(folder / manifest.kohya_file, framework="pt") as opened:
        architecture = (opened.metadata() or {}).get("modelspec.architecture", "")
    family = next((name for start, name in _ARCHITECTURES.items() if architecture.startswith(start)), None)
    if family is None:
        return []  # not written by sdlora
    method = manifest.lora.method
    file: File = "folder" if out.suffix != ".safetensors" else "kohya"
    if file == "kohya" and method == "dora" and reader == "comfyui":
        file = "comfyui"
    return misreadings(method, family, manifest.lora.text_encoder_rank is not None, file)


def _remedy(method: Method, family: FamilyName, file: File, names: list[str]) -> str:
    if file == "folder":
        loads = support("diffusers", method, family) == "exact"
        return "Load the folder with diffusers." if loads else "Draw with sdlora, or export the model with `--merged`."
    other: File = "kohya" if file == "comfyui" else "comfyui"
    better = [tool for tool in readers_of(method, family, False, other) if tool in names]
    rest = [tool for tool in names if tool not in better]
    option = "comfyui" if other == "comfyui" else "lycoris"
    sentences = [f"For {_listed(better)} export with `--for {option}`."] if better else []
    return " ".join([*sentences, *([f"For {_listed(rest)} export the model with `--merged`."] if rest else [])])


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
