"""Takedown in the folders of base models: checkpoints that learnt from an image are removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path

REQUEST_FILE = "request.json"
STAGES_FOLDER, MODEL_FOLDER = "stages", "model"


def forget_stages(home: Path, snapshot_digests: Collection[str]) -> list[Path]:
    """Remove the checkpoints of base models made from these snapshots; return the folders of finished models.

    A finished model stays, because adapters need it and its removal is a decision of a person.
    """
    finished = []
    for file in sorted((home / "bases").glob(f"*/{REQUEST_FILE}")):
        try:
            snapshot_digest = json.loads(file.read_text())["snapshot_digest"]
        except (OSError, ValueError, KeyError, TypeError):  # damaged: nobody knows what the model learnt from
            continue
        if snapshot_digest in snapshot_digests:
            shutil.rmtree(file.parent / STAGES_FOLDER, ignore_errors=True)
            if (file.parent / MODEL_FOLDER).is_dir():
                finished.append(file.parent)
    return finished
