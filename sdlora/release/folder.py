"""Release folder of one version: weights in both formats, model card, report and evidence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from sdlora.core.errors import EvaluationError, StorageError, WeightsError
from sdlora.core.files import link_or_copy, written_aside
from sdlora.core.refs import ADAPTER_WEIGHTS
from sdlora.records.decision import DECISION_FILE
from sdlora.records.duel import DUEL_FILE
from sdlora.release.model_card import write_model_card
from sdlora.release.record import DATA_PAGE, VersionRecord
from sdlora.release.report import write_report


def write_release(folder: Path, record: VersionRecord) -> Path:
    """Write the whole version to `folder`, replacing an earlier release.

    A process that dies on the way leaves the old folder, none or the new one, never a mixture.

    Contents: README.md (the model card), both adapter files and adapter.json, duel.json, decision.json,
    report.html, grid.png, and data.html if there is one. The adapter's files are second names of those of the
    training where the file system allows it, so they take no space.

    Raises:
        EvaluationError: the decision was made on another duel.
        WeightsError: an adapter file is missing.
        StorageError: the disk is full or not writable; an earlier release is untouched.
    """
    if record.decision.duel_digest != record.duel.digest():
        raise EvaluationError(
            f"The decision is bound to duel {record.decision.duel_digest[:12]}, but the evidence is "
            f"{record.duel.digest()[:12]}. Ask the gate again."
        )
    try:
        with written_aside(folder) as partial:
            partial.mkdir()
            for name in (ADAPTER_WEIGHTS, record.single_file, "adapter.json"):
                _take_over(record.adapter_folder / name, partial / name)
            shutil.copyfile(record.duel_folder / record.duel.grid, partial / "grid.png")
            for name, evidence in ((DUEL_FILE, record.duel), (DECISION_FILE, record.decision)):
                (partial / name).write_text(json.dumps(evidence.model_dump(mode="json"), indent=1) + "\n")
            if record.data_page and record.data_page.is_file():
                shutil.copyfile(record.data_page, partial / DATA_PAGE)
            write_model_card(partial, record)
            write_report(partial, record)
    except OSError as error:
        raise StorageError(f"Cannot write the release to {folder}: {error}. Free some space and run again.") from error
    return folder


def _take_over(source: Path, target: Path) -> None:
    if not source.is_file():
        raise WeightsError(f"{source} is missing, so the version cannot be released. Train the adapter again.")
    link_or_copy(source, target)
