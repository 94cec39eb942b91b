"""A version with invented scores and real files, for what lays it out."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from sdlora.evaluation.config import GateConfig
from sdlora.evaluation.gate import decide
from sdlora.release.record import Curve, DataSummary, RejectedImage, VersionRecord
from tests.unit.evaluation.made_duel import made_duel


def png(side: int = 16, colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


FULL_DATA = DataSummary(
    train_count=1392,
    held_out_count=130,
    verdicts={"accepted": 1522, "rejected": 3},
    reasons={"unreadable": 1, "blank": 2},
    rejected=[
        RejectedImage("torn.png", "unreadable: the file ends early", b"\x89PNG"),
        RejectedImage("b", "blank", png()),
    ],
    licences={"MIT (Some Icons)": 1392},
    sources={"folder": 1392},
    captions=["an icon of a cat", "an icon of a dog", "an icon of two birds"],
)


def made_record(folder: Path, *, champion: bool = True, **changes: object) -> VersionRecord:
    """Writes the duel's pictures and both adapter files under `folder`."""
    duel = made_duel(folder=folder / "evaluation", reach=0.01, **({} if champion else {"champion": None}))
    adapter = folder / "adapter"
    adapter.mkdir(parents=True, exist_ok=True)
    for name in ("pytorch_lora_weights.safetensors", "icons.safetensors", "adapter.json"):
        (adapter / name).write_bytes(f"bytes of {name}".encode())
    record = VersionRecord(
        name="icons",
        version="3",
        created=datetime(2025, 11, 23, 19, 40, tzinfo=UTC),
        base_name="embedded",
        duel=duel,
        decision=decide(duel, GateConfig()),
        duel_folder=folder / "evaluation",
        adapter_folder=adapter,
        data=FULL_DATA,
        curves=[
            Curve("training loss", [(step, 1 / (step + 1)) for step in range(60)]),
            Curve("validation", [(0, 1.0)]),
        ],
        settings={"lora": {"rank": 16, "target_modules": ["to_q", "to_k"]}, "seed": None},
        code_version="0.1.0",
    )
    return replace(record, **changes)
