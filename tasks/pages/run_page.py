"""Markdown pages of a run in Prefect. Text from captions and files is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sdlora.data.clean import CleanReport
from sdlora.data.collect_report import CollectReport
from sdlora.records.decision import Decision, GateCheck
from sdlora.records.duel import Duel
from tasks.pages.markdown import markdown_code, markdown_text, table
from tasks.pages.scores import contestants, score_rows

MAX_TILE_PX = 256
JPEG_QUALITY = 85


def images_page(collected: Sequence[CollectReport], cleaned: CleanReport) -> str:
    """Format the page of the images: new images, verdicts, and reasons of rejections."""
    sources = [
        [report.source, str(report.files), str(report.new), str(report.skipped_count + report.unmatched_count)]
        for report in collected
    ]
    unread = [
        [report.source, file.path, file.reason] for report in collected for file in (*report.skipped, *report.problems)
    ]
    counts = cleaned.counts
    verdicts = [
        ["accepted", str(counts.accepted)],
        *([check, str(count)] for check, count in counts.rejected_by.items()),
    ]
    rejected = [[rejection.sha256[:12], rejection.check, rejection.reason] for rejection in cleaned.rejected]
    parts = [
        "## Images",
        table(["source", "images", "new", "not read"], sources)
        if sources
        else "No source: only images that the database holds already.",
        table(["all images by verdict", "count"], verdicts),
    ]
    if unread:
        parts += ["### Not read", table(["source", "file", "reason"], unread)]
    if rejected:
        parts += ["### Rejected in this run", table(["image", "check", "reason"], rejected)]
    return "\n\n".join(parts)


@dataclass(frozen=True)
class Link:
    """Link to a server's page, or a file's path if no server shows it."""

    label: str
    address: str | None
    path: Path | None

    def markdown(self) -> str:
        if self.address:
            return f"[{self.label}]({self.address})"
        return f"{self.label}: {markdown_code(self.path)}" if self.path else ""


def result_page(
    title: str, verdict: str, consequence: str, decision: Decision, duel: Duel, folder: Path, links: Sequence[Link]
) -> str:
    """Format the page of a run: the decision, links, pictures, scores and every check.

    Args:
        title: the version.
        verdict: the decision in a few words.
        consequence: what follows from it, in a sentence or two.
        folder: the folder of the duel and its pictures.
    """
    failed = "in doubt" if decision.answer == "cannot tell" else "failed"
    checks = [["passed" if check.passed else failed, check.name, check.reason] for check in decision.checks]
    return "\n\n".join(
        [
            f"## {verdict}: {markdown_text(title)}",
            f"The gate's answer: **{decision.answer}**. {markdown_text(consequence)}",
            "\n".join(f"- {markdown_text(check.reason)}" for check in leading_checks(decision)),
            links_line(links),
            inline_image(folder / duel.before_after_grid, "Base model, and with the adapter"),
            f"### Scores on {len(duel.samples)} held-out images, the same prompts and seeds for all",
            table(["metric", *contestants(duel), "better is"], score_rows(duel)),
            "Values with their 95 % interval.",
            "### Every check",
            table(["", "check", "finding"], checks),
        ]
    )


def leading_checks(decision: Decision) -> list[GateCheck]:
    """List the failed checks, then the first check if it passed: the result of the comparison itself."""
    failed = [check for check in decision.checks if not check.passed]
    return failed + [check for check in decision.checks[:1] if check.passed]


def nothing_new_page(finding: str, reasons: Sequence[str], links: Sequence[Link], hints: Sequence[str] = ()) -> str:
    """Format the page of a run that found nothing new."""
    return "\n\n".join(
        [
            f"## Nothing new: {markdown_text(finding)}",
            "\n".join(f"- {markdown_text(reason)}" for reason in reasons),
            *hints,
            links_line(links),
        ]
    )


def links_line(links: Sequence[Link]) -> str:
    """Format links on one line; with a path among them, one a line, plus the command that serves the pages."""
    targets = [link for link in links if link.markdown()]
    if all(link.address for link in targets):
        return " · ".join(link.markdown() for link in targets)
    lines = "\n".join(f"- {link.markdown()}" for link in targets)
    return f"{lines}\n\nA browser shows the pages while {markdown_code('sdlora up')} runs."


def drawings_page(model: str, prompt: str, paths: Sequence[Path]) -> str:
    """Format generated images as a row."""
    images = " ".join(inline_image(path, path.name) for path in paths)
    return f"## {markdown_text(prompt)}\n\n{markdown_text(model)}\n\n{images}"


def inline_image(path: Path, title: str) -> str:
    """Embed a JPEG in the page, so that no server is needed; its size is at most 4 x 16 tiles of `MAX_TILE_PX`."""
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((4 * MAX_TILE_PX, 16 * MAX_TILE_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"![{markdown_text(title)}](data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()})"
