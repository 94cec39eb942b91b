"""What MLflow's page of a registered model says: what this line of adapters is, and who was champion when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.markdown import markdown_code, markdown_text, table
from tasks.tracking.links import version_route

MAX_LENGTH = 5000  # of a description in MLflow's SQL database
_SHOWN_REIGNS = 20


def line_description(
    name: str, base: str, newest: int, champion: int | None, history: Sequence[Mapping[str, str]]
) -> str:
    """The page's markdown.

    Args:
        base: the base model's name.
        newest: the number of the newest version.
        champion: the number of the version in use.
        history: every change of the champion, oldest first.
    """
    what = (
        f"LoRA adapters of the style **{markdown_text(name)}** for the base model {markdown_text(base)}. Each version "
        "was trained on one set of images and judged against the base model and the champion of its day."
    )
    text = [what]
    # An alias that a person moved in MLflow's page leaves no entry.
    known = champion is not None and bool(history) and history[-1]["to"] == str(champion)
    if champion is None:
        text.append("**No champion yet:** no version has passed every check.")
    else:
        since = f" since {_when(history[-1]['at'])}" if known else ""
        command = markdown_code(f'sdlora generate "your words" --name {name}')
        text.append(
            f"**Champion: [version {champion}]({version_route(name, champion)})**{since}. Draw with it: {command}"
        )
    if history:
        text.append(table(["champion", "from", "until"], _reigns(history, known)))
    text.append(f"Newest: [version {newest}]({version_route(name, newest)}).")
    return "\n\n".join(text)


def _reigns(history: Sequence[Mapping[str, str]], ongoing: bool) -> list[list[str]]:
    """Newest first: version, from, until."""
    ends = [*(_when(change["at"]) for change in history[1:]), "now" if ongoing else "changed by hand"]
    reigns = [[f"version {change['to']}", _when(change["at"]), end] for change, end in zip(history, ends, strict=True)]
    return reigns[::-1][:_SHOWN_REIGNS]


def _when(moment: str) -> str:
    return f"{moment[:16].replace('T', ' ')} UTC"
