"""Records of styles' deployments in Prefect's server: created, replaced, marked as broken, paused, resumed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule

from deployments.register import STYLE_SLUG, Deployment, with_those_of_people
from deployments.styles.files import Style
from sdlora.config import PipelineConfig
from sdlora.core.schedule import ScheduleConfig
from tasks.form import STYLE
from tasks.pages.markdown import markdown_code

_OURS = "style "
"""Start of the version of every deployment of a style."""
_REMOVED = f"{_OURS}removed"
_PAGE = 200  # deployments that the server returns at once, at most


def registered_styles(template: Deployment, client: SyncPrefectClient) -> dict[str, DeploymentResponse]:
    """Read the deployments of the template's flow that are of styles, by name."""
    found: dict[str, DeploymentResponse] = {}
    flow = FlowFilter(name=FlowFilterName(any_=[template.flow_name]))
    while page := client.read_deployments(flow_filter=flow, limit=_PAGE, offset=len(found)):
        found |= {deployment.name: deployment for deployment in page}
    return {name: one for name, one in found.items() if (one.version or "").startswith(_OURS)}


def register(
    style: Style,
    config: PipelineConfig,
    registered: DeploymentResponse | None,
    template: Deployment,
    client: SyncPrefectClient,
) -> None:
    """Create or replace the deployment of a style, unless the server has it like this already."""
    facts: dict[str, Any] = {
        "parameters": STYLE.parameters(config),
        "description": _description(style.file, config.schedule),
        "tags": list(config.schedule.tags),
    }
    version = _version(facts, config.schedule, template)
    if registered and registered.version == version:
        return
    if registered and registered.version == _REMOVED:
        facts["paused"] = False
    schedules = _schedules(config.schedule, registered)
    template.register_as(style.name, {**facts, "version": version, "schedules": schedules}, client)


def mark_broken(style: Style, registered: DeploymentResponse, client: SyncPrefectClient) -> None:
    """Say on the deployment's page that the file is broken; its last good settings stay."""
    version = f"{_OURS}broken {_digest(style.problem)}"
    if registered.version in (version, _REMOVED):
        return
    text = (
        f"**The file `{style.file}` is broken. This deployment keeps the last settings that were whole.**\n\n"
        f"{markdown_code(style.problem)}"
    )
    client.update_deployment(registered.id, DeploymentUpdate(version=version, description=text))


def pause(registered: DeploymentResponse, client: SyncPrefectClient) -> None:
    """Pause the deployment of a style whose file is gone; a person may resume it on the page."""
    if registered.version == _REMOVED:
        return
    text = (
        "**The file of this style was removed, so the deployment is paused.** `sdlora up` resumes it when the file is "
        "back. Versions, champion and images of the style stay."
    )
    client.update_deployment(registered.id, DeploymentUpdate(version=_REMOVED, description=text, paused=True))


def _description(file: Path, schedule: ScheduleConfig) -> str:
    text = (
        f"The style in `{file}`. Settings, schedule and tags follow the file: `sdlora up` takes up a change within "
        "seconds. The form changes one run."
    )
    if schedule.window:
        text += (
            f"\n\nRuns that no person asked for start only in the hours {schedule.window} ({schedule.timezone}). "
            "Others are skipped."
        )
    return text


def _version(facts: dict[str, Any], schedule: ScheduleConfig, template: Deployment) -> str:
    return f"{_OURS}{_digest([facts, schedule.model_dump(mode='json'), template.form, template.start])}"


def _schedules(schedule: ScheduleConfig, registered: DeploymentResponse | None) -> list[DeploymentScheduleCreate]:
    own = []
    if schedule.cron is not None:
        times = CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
        own.append(DeploymentScheduleCreate(schedule=times, active=True, slug=STYLE_SLUG))
    return with_those_of_people(own, registered.schedules if registered else [])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
