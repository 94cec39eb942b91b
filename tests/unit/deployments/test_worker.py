"""Which flow runs get a process: a person's never waits for the clock's, and few only wait."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import CreatedBy, FlowRun

from deployments.environment import PROJECT
from deployments.servers.worker import TRAINING_FLOWS, WAITING, admitted
from flows.compare import compare
from flows.pretrain import pretrain
from flows.retrain import retrain

FLOWS = {uuid4(): "retrain", uuid4(): "collect"}
RETRAIN, COLLECT = FLOWS
THREE = datetime(2026, 11, 30, 3, tzinfo=UTC)


def run_of(minute: int = 0, *, who: str = "clock", flow: UUID = RETRAIN) -> FlowRun:
    created_by = {"clock": "SCHEDULE", "trigger": "AUTOMATION"}.get(who)
    return FlowRun(
        flow_id=flow,
        auto_scheduled=who == "clock",
        created_by=CreatedBy(type=created_by) if created_by else None,
        expected_start_time=THREE + timedelta(minutes=minute),
    )


@pytest.mark.parametrize("who", ["clock", "trigger"])
@pytest.mark.parametrize("slots", [1, 2])
def test_twenty_schedules_at_three_start_few_processes_in_the_order_of_their_times(slots, who):
    due = [run_of(minute, who=who) for minute in range(20)]
    chosen = admitted(due[::-1], [], FLOWS, slots)
    assert chosen == due[: slots + WAITING]
    assert admitted(due[slots + WAITING :], chosen, FLOWS, slots) == []
    assert admitted(due[slots + WAITING :], chosen[1:], FLOWS, slots) == [due[slots + WAITING]]


def test_a_persons_run_gets_a_process_at_once_and_before_the_clocks():
    clocks = [run_of() for _ in range(20)]
    person = run_of(5, who="person")
    chosen = admitted([*clocks, person], [], FLOWS, 1)
    assert chosen[0] is person
    active = admitted(clocks, [], FLOWS, 1)
    assert admitted([*clocks[3:], person], active, FLOWS, 1) == [person]


def test_many_runs_of_people_wait_in_few_processes_too():
    due = [run_of(minute, who="person") for minute in range(20)]
    assert admitted(due, [], FLOWS, 1) == due[: 1 + 2 * WAITING]


def test_what_trains_nothing_waits_for_nothing():
    busy = [run_of() for _ in range(9)]
    due = [run_of(flow=COLLECT), run_of(who="person", flow=COLLECT)]
    assert sorted(admitted(due, busy, FLOWS, 1), key=id) == sorted(due, key=id)


def test_the_flows_that_train_have_the_names_that_the_worker_knows():
    assert {flow.name for flow in (retrain, compare, pretrain)} == TRAINING_FLOWS


def test_a_worker_looks_for_runs_every_two_seconds_unless_the_user_says_otherwise(monkeypatch):
    ask = (
        "from prefect.settings import PREFECT_WORKER_QUERY_SECONDS\n"
        "from deployments.servers.worker import frequent_polls\n"
        "with frequent_polls():\n    print(PREFECT_WORKER_QUERY_SECONDS.value())"
    )

    def seconds() -> float:
        return float(subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, cwd=PROJECT).stdout)

    monkeypatch.delenv("PREFECT_WORKER_QUERY_SECONDS", raising=False)
    assert seconds() == 2
    monkeypatch.setenv("PREFECT_WORKER_QUERY_SECONDS", "7")
    assert seconds() == 7
