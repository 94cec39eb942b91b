"""What tasks add to the library: retries of what heals, progress on the run's page."""

from __future__ import annotations

import pytest
from prefect import flow, task
from prefect.runtime import flow_run

from sdlora.core.errors import DataError
from sdlora.core.progress import Listener
from tasks.progress import listening, report_metrics, task_progress
from tasks.retries import is_transient
from tests.prefect_records import artifacts_of


def failing_first(error: Exception, attempts: list[int]):
    @task(retries=1, retry_delay_seconds=0, retry_condition_fn=is_transient)
    def step() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise error
        return "healed"

    @flow
    def work() -> str:
        return step()

    return work


def test_a_server_that_is_away_for_a_moment_is_tried_again():
    wrapped = RuntimeError("the library's own words")
    wrapped.__cause__ = ConnectionError("refused")
    for error in (TimeoutError("slow"), wrapped):
        attempts: list[int] = []
        assert failing_first(error, attempts)() == "healed"
        assert len(attempts) == 2


def test_bad_data_is_not_tried_again():
    attempts: list[int] = []
    with pytest.raises(DataError):
        failing_first(DataError("no images"), attempts)()
    assert len(attempts) == 1


def test_progress_of_all_tasks_is_one_bar_on_the_page_of_the_run_and_reaches_the_listener():
    @task
    def step() -> None:
        report = task_progress()
        for done in range(51):
            report("draw pictures", done, 50)
        report_metrics(50, {"loss": 0.5})

    @task
    def before() -> None:
        task_progress()("collect images", 1, 2)

    @flow
    def work() -> str:
        before()
        step()
        return flow_run.id

    heard: list[object] = []

    class Ear(Listener):
        def on_progress(self, *progress: object) -> None:
            heard.append(progress)

        def on_metrics(self, *metrics: object) -> None:
            heard.append(metrics)

    with listening(Ear()):
        run = work()
    assert heard[:2] == [("collect images", 1, 2), ("draw pictures", 0, 50)]
    assert heard[-2:] == [("draw pictures", 50, 50), (50, {"loss": 0.5})]
    (artifact,) = artifacts_of(run).values()
    assert artifact.data == 100.0
    assert artifact.description == "draw pictures: 50 of 50"
