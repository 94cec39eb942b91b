"""Registration of the deployments in `prefect.yaml` with the server that `PREFECT_API_URL` names.

python -m deployments.register    # PREFECT_API_URL, its credentials and SDLORA_PROJECT are set

`prefect deploy --all` does nearly the same, but its forms refuse an empty box. As a process of its own, it would also
import Prefect and the flows again, which takes longer than all its calls. `sdlora up` imports them while the server
starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, DeploymentSchedule
from prefect.client.schemas.schedules import construct_schedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.utilities.templating import apply_values
from prefect.workers.process import ProcessWorker

from deployments.environment import POOL, PREFECT_FILE, PROJECT
from deployments.servers import flow_process
from sdlora.core.errors import ConfigError

STYLE_SLUG = "file"
"""Slug of the schedule that is in a style's file."""
OWN_SLUGS = {STYLE_SLUG, "reconcile", "nightly"}  # `nightly` was in prefect.yaml
"""Slugs of schedules that people did not make."""
_KNOWN_KEYS = {"name", "entrypoint", "description", "parameters", "work_pool", "concurrency_limit", "schedules"}


def ensure_process_pool(name: str) -> None:
    """Create a work pool whose runs are processes on this machine, unless a pool of that name exists."""
    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=name, type=ProcessWorker.type, base_job_template=template))


def load_deployments(file: Path, project: Path, parameters: Mapping[str, Mapping[str, Any]]) -> list[Deployment]:
    """Read the deployments of `file`, with their flows imported from below `project`.

    Args:
        file: A `prefect.yaml`.
        project: The folder that its entrypoints are relative to.
        parameters: Default parameters by `flow/deployment`; they override those of the file.
    """
    template = yaml.safe_load(file.read_text())
    content: Any = apply_values(template, {}, remove_notset=False)  # {{ $NAME }} becomes the environment variable NAME
    return [Deployment(entry, content["pull"], project, parameters, file) for entry in content["deployments"]]


class Deployment:
    """Entry of `prefect.yaml`.

    Raises:
        ConfigError: the entry has a key that is not passed on.
    """

    def __init__(
        self,
        entry: Mapping[str, Any],
        pull_steps: list[dict[str, Any]],
        project: Path,
        parameters: Mapping[str, Mapping[str, Any]],
        file: Path,
    ) -> None:
        if unknown := entry.keys() - _KNOWN_KEYS:
            raise ConfigError(
                f"{file}: deployment {entry.get('name')!r} has {', '.join(sorted(unknown))}, which `sdlora up` does "
                f"not pass on. Known: {', '.join(sorted(_KNOWN_KEYS))}."
            )
        limit = entry.get("concurrency_limit")
        self._deployment = RunnerDeployment.from_entrypoint(
            str(project / entry["entrypoint"]),
            name=entry["name"],
            description=entry.get("description"),
            parameters=dict(entry.get("parameters", {})),
            work_pool_name=entry["work_pool"]["name"],
            concurrency_limit=ConcurrencyLimitConfig(**limit) if isinstance(limit, Mapping) else limit,
        )
        self._deployment.entrypoint = entry[
            "entrypoint"
        ]  # relative: the pull step sets the working directory to the project
        self._deployment.parameters |= parameters.get(self.name, {})
        _drop_null_defaults(self._deployment._parameter_openapi_schema.properties)
        self._schedules = [_schedule(schedule) for schedule in entry.get("schedules", ())]
        self._pull_steps = pull_steps

    @property
    def name(self) -> str:
        return self._deployment.full_name

    @property
    def flow_name(self) -> str:
        return str(self._deployment.flow_name)

    @property
    def form(self) -> dict[str, Any]:
        """JSON schema of the flow's parameters, which Prefect's page makes a form of."""
        return self._deployment._parameter_openapi_schema.model_dump(exclude_unset=True)

    @property
    def start(self) -> dict[str, Any]:
        """How a run starts: the flow, the steps before it, and the command of its process.

        Folders of the installation are in it, so it changes with the place of sdlora and of its Python.
        """
        return {
            "entrypoint": self._deployment.entrypoint,
            "pull_steps": self._pull_steps,
            "job_variables": {"command": flow_process.command()},
        }

    def register(self) -> None:
        """Create the deployment, or replace it by the file's entry; schedules made on the page stay."""
        with get_client(sync_client=True) as client:
            try:
                old = client.read_deployment_by_name(self.name).schedules
            except ObjectNotFound:
                old = []
            facts = {
                "parameters": self._deployment.parameters,
                "description": self._deployment.description,
                "schedules": with_those_of_people(self._schedules, old),
                "version": self._deployment.version,  # of the flow: a digest of its file
            }
            self.register_as(self._deployment.name, facts, client)

    def register_as(self, name: str, facts: Mapping[str, Any], client: SyncPrefectClient) -> None:
        """Create or replace the deployment `name` of the same flow, code and pool.

        Args:
            facts: what differs: parameters, description, tags, schedules, version, paused (None leaves it as it is).
        """
        client.create_deployment(
            flow_id=client.create_flow_from_name(self.flow_name),
            name=name,
            work_pool_name=self._deployment.work_pool_name,
            concurrency_limit=self._deployment.concurrency_limit,
            concurrency_options=self._deployment.concurrency_options,
            parameter_openapi_schema=self.form,
            enforce_parameter_schema=True,
            **self.start,
            **facts,
        )


def _drop_null_defaults(properties: dict[str, Any]) -> None:
    """Remove defaults of null: the page would send null for an empty box, and the server would refuse it.

    Without a default, the page sends nothing for an empty box, which means the same.
    """
    for schema in properties.values():
        if schema.get("default", ...) is None:
            del schema["default"]


def with_those_of_people(
    own: Sequence[DeploymentScheduleCreate], old: Sequence[DeploymentSchedule]
) -> list[DeploymentScheduleCreate]:
    """Return the schedules of a file together with those that people made on the page.

    A schedule of the file that was paused on the page stays paused if its times are the same.

    Args:
        own: schedules of the file, each with a slug.
        old: schedules that the server has.
    """
    paused = [(one.slug, one.schedule) for one in old if not one.active]
    ours = [one.model_copy(update={"active": False}) if (one.slug, one.schedule) in paused else one for one in own]
    slugs = {one.slug for one in own} | OWN_SLUGS
    kept = [
        DeploymentScheduleCreate(schedule=one.schedule, active=one.active, slug=one.slug, parameters=one.parameters)
        for one in old
        if one.slug not in slugs
    ]
    return [*ours, *kept]


def _schedule(entry: Mapping[str, Any]) -> DeploymentScheduleCreate:
    options = {key: value for key, value in entry.items() if key in ("active", "slug", "parameters")}
    times = construct_schedule(**{key: entry[key] for key in entry.keys() - options.keys()})
    return DeploymentScheduleCreate(schedule=times, **options)


if __name__ == "__main__":
    os.environ.setdefault("SDLORA_PROJECT", str(PROJECT))
    ensure_process_pool(POOL)
    for _deployment in load_deployments(PREFECT_FILE, PROJECT, {}):
        _deployment.register()
        print(f"Registered {_deployment.name}.")
