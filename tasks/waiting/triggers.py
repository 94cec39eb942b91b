"""Start of the runs that new data ask for: each exactly once, whatever dies in between.

The start is recorded first, with a key. Then Prefect is asked for a run with this key, and it makes one run however
often it is asked. So a kill at any point is made good by the next call. An event with an automation could not promise
this: the sender gets no answer, and Prefect's server keeps events in memory. The event `sdlora.ready` is emitted for
automations that people make; no run depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound, PrefectException

from sdlora.config import PipelineConfig
from sdlora.core.errors import ConfigError, StorageError
from sdlora.release.messages import images_given_up_message
from sdlora.store.image_store import ImageStore
from sdlora.store.readiness import Readiness, TriggeredStyle, readiness
from sdlora.store.starts import Start, ask_start, end_start, failed, open_starts, record_created
from tasks.form import STYLE
from tasks.notify.tell import tell
from tasks.run_log import log_text, run_log
from tasks.settings_digest import settings_digest

FLOW = "retrain"
_REGISTERED_LOOK = timedelta(seconds=5)
_PAGE = 200  # deployments that the server returns at once, at most
_OF_STYLE, _REMOVED = "style ", "style removed"
"""Start of the version of a style's deployment, and the version of one without a file."""


def registered_configs(client: SyncPrefectClient) -> list[PipelineConfig]:
    """Read the settings of all styles from their deployments; paused ones are left out."""
    found: list[PipelineConfig] = []
    offset = 0
    flow = FlowFilter(name=FlowFilterName(any_=[FLOW]))
    while page := client.read_deployments(flow_filter=flow, limit=_PAGE, offset=offset):
        offset += len(page)
        for deployment in page:
            version = deployment.version or ""
            if not version.startswith(_OF_STYLE) or version == _REMOVED or deployment.paused:
                continue
            if config := _config_of(deployment):
                found.append(config)
    return found


def _config_of(deployment: DeploymentResponse) -> PipelineConfig | None:
    """Return the settings of a style's deployment; None if an older sdlora registered it."""
    parameters = dict(deployment.parameters)
    try:
        return STYLE.config(parameters.pop("advanced", {}), **parameters)
    except (ConfigError, KeyError):
        return None


def start_ready(styles: Sequence[TriggeredStyle], home: Path, now: datetime) -> list[Readiness]:
    """Start the run of every style that is ready, and finish what an earlier call began; return the decisions.

    A style whose run cannot be started stops no other.

    Raises:
        httpx.HTTPError, PrefectException: the Prefect server cannot be reached; the next call goes on.
    """
    decisions = []
    with ImageStore.open(home) as store, get_client(sync_client=True) as client:
        ended = set()
        for start in _open(store):
            with _stopping_no_other(start.style):
                if _follow(start, store, client):
                    ended.add(start.id)
        for style in styles:
            decision = Readiness(style.name, False, "its run cannot be started; the log says why")
            with _stopping_no_other(style.name):
                with store.read() as session:
                    found = readiness(session, style, now)
                decision = _start(style, store, client, now) if found.is_ready else found
            decisions.append(decision)
            if decision.is_given_up and decision.tries[-1].id in ended:
                last, times = decision.tries[-1], len(failed(decision.tries))
                cause = (last.data_digest, last.settings_digest)
                tell(home, images_given_up_message(style.name, *cause, times, last.outcome or ""))
    return decisions


@contextmanager
def _stopping_no_other(style: str) -> Iterator[None]:
    """Log the error of one style; a server that is away, or that lets nobody in, is no error of a style."""
    try:
        yield
    except (StorageError, PrefectException, httpx.HTTPError) as error:
        if not _is_refused(error):
            raise
        run_log().warning("%s: its run cannot be started: %s", style, log_text(error))
    except Exception:  # whatever is wrong with its records
        log = run_log()
        log.warning("%s: its run cannot be started", style, exc_info=True)


def _is_refused(error: Exception) -> bool:
    """Return True if Prefect's server answered that it does not take this request, such as for a wrong parameter."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code in (400, 404, 409, 422)


def _open(store: ImageStore) -> list[Start]:
    with store.read() as session:
        return open_starts(session)


def _start(style: TriggeredStyle, store: ImageStore, client: SyncPrefectClient, now: datetime) -> Readiness:
    obstacle, registered = _deployment_of(style, client)
    with (
        store.write() as session
    ):  # the write lock: of two processes that decide, the second sees the first one's start
        decision = readiness(session, registered, now)
        if not decision.is_ready or decision.data_digest is None:
            return decision if registered == style else replace(decision, look_again_at=now + _REGISTERED_LOOK)
        if obstacle:
            return Readiness(style.name, False, obstacle, decision.new_images, decision.data_digest)
        news = (decision.data_digest, registered.settings_digest)
        start = ask_start(session, style.name, *news, decision.new_images, decision.reason)
    _create(start, store, client)
    return decision


def _deployment_of(style: TriggeredStyle, client: SyncPrefectClient) -> tuple[str | None, TriggeredStyle]:
    """Return why the style's deployment starts no run, and the style with the settings that its run would have.

    These are not those of a file that has just been corrected: `sdlora up` takes it up within seconds.
    """
    try:
        deployment = client.read_deployment_by_name(f"{FLOW}/{style.name}")
    except ObjectNotFound:
        return "the style has no deployment; `sdlora up` registers it", style
    config = _config_of(deployment)
    registered = replace(style, settings_digest=settings_digest(config)) if config else style
    return "its deployment is paused" if deployment.paused else None, registered


def _create(start: Start, store: ImageStore, client: SyncPrefectClient) -> None:
    try:
        deployment = client.read_deployment_by_name(f"{FLOW}/{start.style}")
    except ObjectNotFound:
        with store.write() as session:
            end_start(session, start, "its deployment is gone")
        return
    try:
        run = client.create_flow_run_from_deployment(deployment.id, idempotency_key=start.key)
    except httpx.HTTPStatusError as error:
        if not _is_refused(error):
            raise
        with store.write() as session:  # counts as a try, so that people hear of the last one
            end_start(session, start, log_text(f"Prefect refused its run: {error}", 300))
        raise
    with store.write() as session:
        record_created(session, start, str(run.id))
    run_log().info("%s: %s, so the run %s starts", start.style, start.why, run.name)
    with suppress(Exception):  # an event is for people's own automations; no run depends on it
        emit_event(
            "sdlora.ready",
            resource={"prefect.resource.id": f"sdlora.style.{start.style}", "prefect.resource.name": start.style},
            payload={"why": start.why, "new_images": start.new_images, "flow_run_id": str(run.id), "key": start.key},
        )


def _follow(start: Start, store: ImageStore, client: SyncPrefectClient) -> bool:
    """Create the run of a start that was cut off; return True if its run has ended since the last call."""
    if start.state == "asked" or start.flow_run_id is None:
        _create(start, store, client)
        return False
    try:
        state = client.read_flow_run(UUID(start.flow_run_id)).state
    except ObjectNotFound:
        outcome = "its run was deleted"
    else:
        if state is None or not state.is_final():
            return False
        outcome = log_text(f"{state.name}: {state.message}" if state.message else state.name, 300)
    with store.write() as session:
        end_start(session, start, outcome)
    return True
