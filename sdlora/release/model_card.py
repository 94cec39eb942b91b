"""Model card: Markdown with the front matter for the Hugging Face hub."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from sdlora.core.files import replace_file
from sdlora.records.metrics import METRICS, Estimate, Metric
from sdlora.release.record import VersionRecord, caption_pattern

CARD_FILE = "README.md"
# From licences as sources state them to identifiers of the hub's list; a remark in brackets may follow.
_LICENCE = re.compile(r"([\w.+-]+)(?: licen[cs]e)?\s*(\(.*\))?", re.IGNORECASE)
_HUB_LICENCES = {
    **{name: name for name in ("mit", "apache-2.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0")},
    "cc0": "cc0-1.0",
    "openrail++": "openrail++",
}


def write_model_card(folder: Path, record: VersionRecord) -> Path:
    """Write `folder/README.md`.

    Raises:
        StorageError: the folder cannot be written; an earlier card is untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CARD_FILE
    replace_file(path, render_model_card(record).encode())
    return path


def render_model_card(record: VersionRecord) -> str:
    """Render the card as text; captions, names and licences are escaped for Markdown and HTML."""
    # Autoescaping would turn quotes in prose into entities; the two filters mark text from outside.
    environment = Environment(  # noqa: S701
        loader=PackageLoader("sdlora.release"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(text=_text, code=_code)
    duel = record.duel
    body = environment.get_template("model_card.md.jinja").render(
        record=record,
        duel=duel,
        decision=record.decision,
        data=record.data,
        rows=[
            (metric, [_cell(duel.scores[contestant].metrics.get(name), metric) for contestant in duel.contestants])
            for name, metric in METRICS.items()
        ],
        pattern=caption_pattern(record.data.captions),
        example=duel.samples[0].prompt if duel.samples else "",
    )
    return f"---\n{yaml.safe_dump(front_matter(record), sort_keys=False, allow_unicode=True)}---\n\n{body}"


def front_matter(record: VersionRecord) -> dict[str, Any]:
    """Build the metadata of this version for the hub."""
    pattern = None if record.adoption else caption_pattern(record.data.captions)
    return {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        # The hub links this name to one of its models, so a local name is left out.
        **({"base_model": record.base_name, "base_model_relation": "adapter"} if "/" in record.base_name else {}),
        **licence_metadata({} if record.adoption else record.data.licences),
        "tags": ["stable-diffusion", "lora", "text-to-image", "diffusers", "sdlora"],
        **({"instance_prompt": pattern} if pattern else {}),
        "metrics": [name for name in ("kid", "fid") if name in record.duel.scores["candidate"].metrics],
    }


def licence_metadata(licences: Mapping[str, int]) -> dict[str, str]:
    """Map the images' licences to the hub's metadata: one known licence to its identifier, all else to "other".

    Several licences stay "other", because software cannot decide which of them binds the model.
    """
    names = sorted(licences)
    if not names:
        return {"license": "unknown"}
    matches = [_LICENCE.fullmatch(name.strip()) for name in names]
    identifiers = {_HUB_LICENCES.get(match[1].lower()) if match else None for match in matches}
    if len(identifiers) == 1 and (identifier := identifiers.pop()):
        return {"license": identifier}
    return {"license": "other", "license_name": "licences-of-the-training-images"}


def _cell(estimate: Estimate | None, metric: Metric) -> str:
    if estimate is None:
        return "not measured"
    value = metric.number(estimate.value)
    if estimate.low == estimate.high:
        return value
    return f"{value} ({metric.number(estimate.low)} to {metric.number(estimate.high)})"


def _text(value: object) -> str:
    """Escape outside text for Markdown prose or a table cell, so that it is never markup."""
    plain = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|#!~])", r"\\\1", plain)


def _code(value: object) -> str:
    """Wrap outside text in a code span, which has no escapes, with a fence longer than any run of backticks in it."""
    plain = " ".join(str(value).split()).replace("|", "¦")
    fence = "`" * (max((len(run) for run in re.findall("`+", plain)), default=0) + 1)
    return f"{fence} {plain} {fence}" if "`" in plain else f"{fence}{plain}{fence}"
