"""The plain HTTP calls of `sdlora up`, against a real server."""

from __future__ import annotations

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from prefect.states import Running

from deployments.prefect_api import PrefectApi
from deployments.services import ServiceError
from tasks.lock import training_lock


@pytest.fixture
def api():
    return PrefectApi(PREFECT_API_URL.value().removesuffix("/api"))


@pytest.fixture
def orphan():
    """A run that the database calls running, as one is after a power cut."""

    @flow
    def cut_off() -> None:
        """Never called."""

    with get_client(sync_client=True) as client:
        run = client.create_flow_run(cut_off, state=Running())
        yield lambda: client.read_flow_run(run.id).state
        client.delete_flow_run(run.id)


def test_runs_that_nobody_works_on_are_marked_as_crashed(api, orphan, tmp_path):
    assert len(api.crash_orphans(tmp_path)) == 1
    assert orphan().is_crashed()
    assert api.crash_orphans(tmp_path) == []


def test_a_run_from_another_terminal_is_left_alone(api, orphan, tmp_path):
    with training_lock(tmp_path):
        assert api.crash_orphans(tmp_path) == []
    assert orphan().is_running()


def test_the_work_pool_is_made_once(api):
    api.ensure_process_pool("made-by-test")
    api.ensure_process_pool("made-by-test")
    with get_client(sync_client=True) as client:
        assert client.read_work_pool("made-by-test").type == "process"


def test_what_the_server_refuses_is_told_with_its_answer(api):
    with pytest.raises(ServiceError, match="refused GET deployments/name/no/such: 404"):
        api.set_parameters("no/such", {})
