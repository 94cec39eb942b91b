"""What the training tests train, and on what."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sdlora.core.progress import Listener
from sdlora.core.refs import BaseModelRef
from sdlora.data.snapshot import Snapshot, SnapshotRow, snapshot_digest
from sdlora.store.image_store import ImageStore
from tests.settings import filled_lora, filled_training
from tests.tiny import draw_images

LORA = filled_lora(rank=2, targets="attention")
CONFIG = filled_training(
    steps=6,
    batch_size=2,
    log_every_steps=1,
    validation_every_steps=3,
    checkpoint_every_seconds=3600,
    checkpoint_every_steps=2,
)
# Everything that has a state of its own: average, dropout, mirrored images, rounding.
EVERYTHING = CONFIG.model_copy(update={"ema_decay": 0.9, "horizontal_flip": True, "precision": "bf16"})
# Long enough to be killed in the middle of anything: buckets, two resolutions, prior images, measurements, pictures,
# checkpoints.
LONG = EVERYTHING.model_copy(
    update={
        "steps": 40,
        "batch_size": 4,
        "aspect_buckets": True,
        "resolutions": (64, 48),
        "micro_batch_size": 3,
        "prior_weight": 0.5,
        "prior_prompts": ("a blue bar",),
        "prior_images": 4,
        "prior_batch_size": 2,
        "validation_every_steps": 4,
        "checkpoint_every_steps": 3,
        "sample_every_steps": 10,
        "sample_prompts": ("a red circle",),
        "sample_inference_steps": 2,
        "precision": "fp32",
    }
)
LORA_WITH_DROPOUT = LORA.model_copy(update={"dropout": 0.2})


class Callbacks(Listener):
    """A listener made of functions: `Callbacks(on_metrics=...)`."""

    def __init__(self, **functions: Callable[..., object]) -> None:
        vars(self).update(functions)


def fill_store(store: ImageStore, folder: Path, count: int = 10, seed: int = 0) -> Snapshot:
    """Draw images into the store; the last three are held out, some have several captions."""
    draw_images(folder, count, seed)
    rows = []
    for index, line in enumerate((folder / "metadata.jsonl").read_text().splitlines()):
        entry = json.loads(line)
        captions = (entry["text"], f"{entry['text']}, again")[: 1 + index % 2]
        sha256 = store.dataset("icons").add_image((folder / entry["file_name"]).read_bytes(), captions)
        rows.append(SnapshotRow(sha256, captions, "held_out" if index >= count - 3 else "train"))
    return as_snapshot(rows)


def as_snapshot(rows: list[SnapshotRow]) -> Snapshot:
    return Snapshot(snapshot_digest(rows), tuple(sorted(rows, key=lambda row: row.sha256)))


def write_setting(path: Path, base: BaseModelRef, store: ImageStore, snapshot: Snapshot) -> None:
    """Hand the setting to another process."""
    rows = [[row.sha256, row.captions, row.split, row.weight] for row in snapshot.rows]
    path.write_text(json.dumps({"base": base.model_dump(mode="json"), "home": str(store.home), "rows": rows}))


def read_setting(path: Path) -> tuple[BaseModelRef, Path, Snapshot]:
    setting = json.loads(path.read_text())
    rows = [
        SnapshotRow(sha256, tuple(captions), split, weight=weight)
        for sha256, captions, split, weight in setting["rows"]
    ]
    return BaseModelRef.model_validate(setting["base"]), Path(setting["home"]), as_snapshot(rows)


@contextmanager
def on_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
