"""Markdown descriptions for MLflow's pages of a version and of its run.

MLflow cleans descriptions: it keeps links and pictures of its own server, and removes styles and sizes of pictures.
"""

from __future__ import annotations

from datetime import datetime

from sdlora.core.refs import SnapshotRef
from sdlora.records.decision import Decision, GateCheck
from sdlora.release.record import VersionRecord
from tasks.pages.markdown import fitting, markdown_text, table
from tasks.pages.run_page import leading_checks
from tasks.pages.scores import LEADING, contestants, score_rows
from tasks.tracking import MAX_DESCRIPTION_LENGTH, RunPage, version_route

REPORT, SUMMARY_PICTURE = "report.html", "images/summary.png"


def version_description(page: RunPage, record: VersionRecord, snapshot: SnapshotRef, data_page: str | None) -> str:
    """Describe a version: verdict, scores, pictures, and links to the details.

    Args:
        snapshot: images of the duel, and of the training unless the adapter was adopted from a file.
        data_page: path of the logged page of the images, if any.
    """
    duel, decision, base = record.duel, record.decision, markdown_text(record.base_name)
    leading = leading_checks(decision)
    links = [f"[Report]({page.file(REPORT)})"]
    if data_page:
        links.append(f"[Images]({page.file(data_page)})")
    links.append(f"[Curves and settings]({page.route})")
    if record.adoption is None:
        origin = f"Trained on {snapshot.train_count} images with the base model {base}"
    else:
        origin = f"{markdown_text(record.adoption.in_words())} Base model {base}"
    training_summary = (
        f"{origin}; evaluated on {len(duel.samples)} prompts of held-out images, with the same seeds for all. Values "
        "with their 95 % interval."
    )
    opening = [
        f"**{record.verdict}.** {_reason(leading[0])}" if leading else f"**{record.verdict}.**",
        *([f"The gate's answer: {decision.answer}."] if decision.answer != "better" or decision.waits else []),
        *(["\n".join(f"- {_reason(check)}" for check in leading[1:])] if leading[1:] else []),
        " · ".join(links),
        table(["", *contestants(duel), "better is"], score_rows(duel, LEADING)),
        f"![Base model and adapter on the same prompts and seeds]({page.image_source(SUMMARY_PICTURE)})",
    ]
    remaining = [f"- {_reason(check)}" for check in decision.checks if check not in leading]
    return fitting("\n\n".join([*opening, training_summary, ""]), remaining, MAX_DESCRIPTION_LENGTH)


def run_description(page: RunPage, verdict: str, name: str, number: int, decision: Decision) -> str:
    """Describe a finished run in two lines; the page of the version has the details."""
    reason = decision.reasons[0] if decision.reasons else ""
    version = f"[version {number}]({version_route(name, number)})"
    return f"**{verdict}:** {version}. {markdown_text(reason)}\n\n[Report]({page.file(REPORT)})"


def later_decision_line(page: RunPage, verdict: str, decided_at: datetime, decision: Decision) -> str:
    """Describe a decision after the publication in a paragraph that follows the version's description."""
    reason = decision.reasons[0] if decision.reasons else ""
    return (
        f"**Judged again on {decided_at:%Y-%m-%d}: {verdict}.** {markdown_text(reason)} [Report]({page.file(REPORT)}), "
        f"[scores]({page.route})"
    )


def training_description(name: str, base: str, snapshot: SnapshotRef) -> str:
    """Describe a run before its evaluation."""
    return (
        f"Trains {markdown_text(name)} on {snapshot.train_count} images, with {snapshot.held_out_count} held out; base "
        f"model {markdown_text(base)}."
    )


def _reason(check: GateCheck) -> str:
    return markdown_text(check.reason)
