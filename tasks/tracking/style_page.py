"""What MLflow's page of a registered model says: what this line of adapters is, and who was champion when."""

from __future__ import annotations

from datetime import datetime

from sdlora.store.champions import ChampionHistory
from tasks.markdown import markdown_code, markdown_text, table
from tasks.tracking.links import version_route

MAX_LENGTH = 5000  # of a description in MLflow's SQL database
_SHOWN_REIGNS = 20


def line_description(history: ChampionHistory, base: str, newest: int) -> str:
    """The page's markdown.

    Args:
        base: the base model's name.
        newest: the number of the newest version.
    """
    name, champion = history.style, history.champion
    what = (
        f"LoRA adapters of the style **{markdown_text(name)}** for the base model {markdown_text(base)}. Each version "
        "was trained on one set of images and judged against the base model and the champion of its day."
    )
    text = [what]
    if champion is None:
        text.append(
            "**No champion:** a person removed the alias."
            if history.moves
            else "**No champion yet:** no version has passed every check."
        )
    else:
        command = markdown_code(f'sdlora generate "your words" --name {name}')
        text.append(
            f"**Champion: [version {champion.number}]({version_route(name, champion.number)})** since "
            f"{_when(history.moves[-1].decided_at)}. Draw with it: {command}"
        )
    if history.moves:
        text.append(table(["champion", "from", "until", "by"], _reigns(history)))
    text.append(f"Newest: [version {newest}]({version_route(name, newest)}).")
    return "\n\n".join(text)


def _reigns(history: ChampionHistory) -> list[list[str]]:
    """Newest first: version, from, until, who made it the champion."""
    moves = history.moves
    ends = [*(_when(move.decided_at) for move in moves[1:]), "now"]
    reigns = [
        [f"version {move.to_version}", _when(move.decided_at), end, markdown_text(move.who)]
        for move, end in zip(moves, ends, strict=True)
        if move.to_version is not None
    ]
    return reigns[::-1][:_SHOWN_REIGNS]


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
