"""What the common Prefect server of the tests has of one run, however many other runs it has."""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterStartTime,
)
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.client.schemas.sorting import FlowRunSort


def newest_run() -> FlowRun:
    """Return the flow run that began last; one that a schedule is still to begin does not count."""
    has_begun = FlowRunFilter(start_time=FlowRunFilterStartTime(is_null_=False))
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_run_filter=has_begun, sort=FlowRunSort.START_TIME_DESC, limit=1)[0]


def artifacts_of(run_id: UUID | str) -> dict[str, Artifact]:
    """Return the artifacts of a flow run by key."""
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(str(run_id))]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=of_run)
    assert len({one.key for one in found}) == len(found)
    return {str(one.key): one for one in found}
