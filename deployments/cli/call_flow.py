"""Call of a flow with the settings of a style, while the terminal shows its stages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.cli.stages import Stages

if TYPE_CHECKING:
    from sdlora.config import PipelineConfig
    from tasks.results import Release


def call_flow(flow: Callable[..., Release], config: PipelineConfig, home: Path, force: bool) -> Release:
    """Run the flow with the settings of a style, and show its stages."""
    from tasks.form import STYLE
    from tasks.progress import listening

    with Stages() as stages, listening(stages):
        return flow(**STYLE.parameters(config), force=force, home=home)
