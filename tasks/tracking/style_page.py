"""Description of a style on MLflow's page of the registered model: its purpose and its champions by date."""

from __future__ import annotations

from datetime import datetime

from sdlora.records.champions import ChampionHistory
from tasks.pages.markdown import markdown_code, markdown_text, table
from tasks.tracking.links import version_route

MAX_DESCRIPTION_LENGTH = 5000  # characters; limit of MLflow's SQL database
_MAX_PERIODS = 20


def style_description(history: ChampionHistory, base: str, newest: int) -> str:
    """Return the description as markdown.

    Args:
        base: name of the base model.
        newest: number of the newest version.
    """
    style, champion = history.style, history.champion
    introduction = (
        f"LoRA adapters of the style **{markdown_text(style)}** for the base model {markdown_text(base)}. Each version "
        "was trained on one set of images and compared with the base model and the champion of its time."
    )
    paragraphs = [introduction]
    if champion is None:
        paragraphs.append(
            "**No champion:** a person removed the alias."
            if history.champion_changes
            else "**No champion yet:** no version has passed every check, or was promoted by a person."
        )
    else:
        command = markdown_code(f'sdlora generate "your words" --style {style}')
        paragraphs.append(
            f"**Champion: [version {champion.number}]({version_route(style, champion.number)})** since "
            f"{_utc(history.champion_changes[-1].decided_at)}. Draw with it: {command}"
        )
    if history.waiting is not None:
        number = history.waiting.version.number
        answers = markdown_code(f"sdlora promote {style} --version {number}")
        paragraphs.append(
            f"**Waits for a person: [version {number}]({version_route(style, number)}).** {answers} makes it the "
            f"champion, {markdown_code(f'sdlora reject {style} --version {number}')} keeps the present state."
        )
    if history.champion_changes:
        paragraphs.append(table(["champion", "from", "until", "by"], _champion_periods(history)))
    paragraphs.append(f"Newest: [version {newest}]({version_route(style, newest)}).")
    return "\n\n".join(paragraphs)


def _champion_periods(history: ChampionHistory) -> list[list[str]]:
    """List champions as (version, from, until, by), the newest first."""
    moves = history.champion_changes
    ends = [*(_utc(move.decided_at) for move in moves[1:]), "now"]
    periods = [
        [f"version {move.to_version}", _utc(move.decided_at), end, markdown_text(move.who)]
        for move, end in zip(moves, ends, strict=True)
        if move.to_version is not None
    ]
    return periods[::-1][:_MAX_PERIODS]


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
