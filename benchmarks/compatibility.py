"""Write the table of docs/compatibility.md from what `sdlora.lora.formats.compatibility` says.

    python benchmarks/compatibility.py

`tests/unit/release/test_compatibility.py` holds the entries to the tools' rules, and the page to the entries.
"""

from __future__ import annotations

from pathlib import Path

from sdlora.lora.config import Method
from sdlora.lora.formats.compatibility import FAMILIES, METHODS, TEXT_FAMILIES, TOOLS, Tool, support
from sdlora.models.families.layouts import FamilyName

PAGE = Path("docs/compatibility.md")
BEGIN, END = "<!-- begin: python benchmarks/compatibility.py -->\n", "<!-- end -->\n"


def table() -> str:
    """One row for methods and families that every tool treats alike."""
    kinds: list[tuple[FamilyName, bool]] = [(family, False) for family in FAMILIES]
    kinds += [(family, True) for family in TEXT_FAMILIES]
    rows: dict[tuple[str, ...], dict[Method, list[tuple[FamilyName, bool]]]] = {}
    for method in METHODS:
        for family, text in kinds:
            cells = tuple(_cell(tool, method, family, text) for tool in TOOLS)
            rows.setdefault(cells, {}).setdefault(method, []).append((family, text))
    lines = ["| method | base | " + " | ".join(TOOLS.values()) + " |", "|---|---|" + "---|" * len(TOOLS)]
    for cells, methods in rows.items():
        groups: dict[str, list[str]] = {}
        for method, found in methods.items():
            groups.setdefault(_bases(found), []).append(METHODS[method])
        lines += [f"| {', '.join(names)} | {bases} | {' | '.join(cells)} |" for bases, names in groups.items()]
    return "\n".join(lines) + "\n"


def _cell(tool: Tool, method: Method, family: FamilyName, text: bool) -> str:
    found = support(tool, method, family, text)
    if found == "exact" and support(tool, method, family, text, "kohya") != "exact":
        return "exact, `--for comfyui`"
    if found == "part":
        return "**denoiser alone**" if tool == "peft" else "**text alone**"
    return f"**{found}**" if found in ("wrong", "nothing") else found


def _bases(found: list[tuple[FamilyName, bool]]) -> str:
    without = [FAMILIES[family] for family, text in found if not text]
    with_text = [FAMILIES[family] for family, text in found if text]
    shown = [", ".join(without)] if without else []
    return "; ".join([*shown, *([f"{', '.join(with_text)} with text encoders"] if with_text else [])])


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2])
