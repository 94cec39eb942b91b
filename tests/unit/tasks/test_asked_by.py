"""Who asked for a run: a person, the clock, a trigger."""

from __future__ import annotations

from uuid import uuid4

import pytest
from prefect.client.schemas.objects import CreatedBy, FlowRun
from prefect.context import FlowRunContext

from tasks.waiting.asked_by import asked_by


def test_a_call_without_a_flow_run_is_a_persons():
    assert asked_by() == "person"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"auto_scheduled": True, "created_by": CreatedBy(type="SCHEDULE")}, "clock"),
        ({"auto_scheduled": True}, "clock"),
        ({"created_by": CreatedBy(type="AUTOMATION")}, "trigger"),
        ({"idempotency_key": "sdlora-ready-comics-0123-1"}, "trigger"),
        ({"created_by": CreatedBy(type="USER")}, "person"),
        ({}, "person"),
    ],
)
def test_what_the_server_knows_of_a_run_tells_its_origin(facts, expected):
    run = FlowRun(flow_id=uuid4(), **facts)
    with FlowRunContext.model_construct(flow_run=run):
        assert asked_by() == expected
