"""Stage 3: the base model, checked and identified by its digest."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from sdlora.core.refs import BaseModelRef
from sdlora.models.config import BaseModelConfig
from tasks.run_log import log_text, run_log


@task(name="prepare base model", persist_result=False)
def prepare_base_model(config: BaseModelConfig, home: Path) -> BaseModelRef:
    """Find the base model's folder and check its files; only a pinned hub revision is downloaded."""
    from sdlora.models.files.sources import load_base_model

    base = load_base_model(config, home)
    run_log().info("Base model: %s, digest %s", log_text(base.name), base.digest[:16])
    return base
