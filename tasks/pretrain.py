"""Pretraining of a base model from a snapshot, with curves in MLflow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from prefect import task

from sdlora.core.config_base import dotted
from sdlora.core.refs import BaseModelRef, SnapshotRef
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.pretraining.config import PretrainPlan
from sdlora.pretraining.launch import PretrainRequest, pretrain_snapshot
from tasks.code_version import code_version
from tasks.progress import task_progress
from tasks.run_log import TrainingLog
from tasks.tracking import tracked_run


@task(name="pretrain base model", persist_result=False)
def pretrain_base_model(snapshot: SnapshotRef, plan: PretrainPlan, home: Path) -> BaseModelRef:
    """Train all stages, or continue an interrupted run; equal inputs find the same folder."""
    identity = hashlib.sha256(f"{snapshot.training_digest}/{plan.model.model_dump_json()}".encode()).hexdigest()
    folder = home / "bases" / f"{plan.name}-{identity[:12]}"
    model = folder / "model"
    if not model.is_dir():
        request = PretrainRequest(home=home, snapshot_digest=snapshot.digest, folder=folder, config=plan.model)
        totals = {
            "autoencoder": plan.model.autoencoder.steps,
            "text encoder": plan.model.text_encoder.steps,
            "unet": plan.model.unet.steps,
            "decoder": plan.model.decoder.steps,
        }
        tags = {"snapshot_digest": snapshot.digest, "code_version": code_version()}
        on_progress = task_progress()
        logs: dict[str, TrainingLog] = {}
        with tracked_run(home, plan.name, folder, _parameters(plan), tags) as record:

            def on_metrics(stage: str, step: int, values: Mapping[str, float]) -> None:
                on_progress(f"pretrain {stage}", step, totals[stage])
                curves = {f"{stage}/{name}": value for name, value in values.items() if name != "seconds_left"}
                record.log_metrics(step, curves)
                logs.setdefault(stage, TrainingLog(totals[stage], stage)).report(step, values)

            pretrain_snapshot(request, plan.processes, on_metrics)
    return load_base_model(BaseModelConfig(source=str(model)), home)


def _parameters(plan: PretrainPlan) -> dict[str, str]:
    return {name: str(value) for name, value in dotted(plan.model.model_dump(mode="json")).items()}
