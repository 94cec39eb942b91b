"""Curves while MLflow is away: training goes on, and every point arrives once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, RESOURCE_DOES_NOT_EXIST

from tasks.tracking.run import TrackedRun, _existing_run
from tests.waiting import PATIENCE_SECONDS


class Server:
    """MLflow's client as far as curves use it."""

    def __init__(self) -> None:
        self.away = False
        self.points: list[tuple[str, int]] = []

    def get_metric_history(self, run_id: str, name: str) -> list[SimpleNamespace]:
        self._answer()
        return [SimpleNamespace(step=step) for key, step in self.points if key == name]

    def log_batch(self, run_id: str, metrics: list) -> None:
        self._answer()
        self.points += [(metric.key, metric.step) for metric in metrics]

    def get_run(self, run_id: str) -> SimpleNamespace:
        self._answer()
        raise MlflowException("no such run", error_code=RESOURCE_DOES_NOT_EXIST)

    def _answer(self) -> None:
        if self.away:
            raise MlflowException("API request failed with exception refused", error_code=INTERNAL_ERROR)


@pytest.fixture
def server() -> Server:
    return Server()


def test_points_of_an_outage_are_kept_and_sent_in_order(server, monkeypatch):
    monkeypatch.setattr("tasks.tracking.run.FLUSH_SECONDS", 0.0)
    run = TrackedRun(server, "id")  # type: ignore[arg-type]
    for step in range(1, 30):
        server.away = 5 <= step < 20
        run.log_metrics(step, {"loss": 0.5})
        assert run._sender.wait(PATIENCE_SECONDS)
    run.flush()
    assert server.points == [("loss", step) for step in range(1, 30)]


def test_a_resumed_training_repeats_no_point(server):
    server.points = [("loss", 1), ("loss", 2)]
    run = TrackedRun(server, "id")  # type: ignore[arg-type]
    for step in (1, 2, 3):
        run.log_metrics(step, {"loss": 0.5})
    run.flush()
    assert server.points == [("loss", 1), ("loss", 2), ("loss", 3)]


def test_a_server_that_stays_away_fails_the_end_of_the_run(server, monkeypatch):
    monkeypatch.setattr("tasks.tracking.run.FLUSH_SECONDS", 3600.0)
    run = TrackedRun(server, "id")  # type: ignore[arg-type]
    run.log_metrics(1, {"loss": 0.5})
    server.away = True
    with pytest.raises(MlflowException, match="refused"):
        run.flush()
    server.away = False
    run.flush()
    assert server.points == [("loss", 1)]


def test_a_run_is_not_made_a_second_time_because_the_server_is_away(server, tmp_path):
    file = tmp_path / "mlflow_run.txt"
    file.write_text("id")
    assert _existing_run(server, file) is None  # the store was cleared
    server.away = True
    with pytest.raises(MlflowException, match="refused"):
        _existing_run(server, file)


def test_points_that_come_while_others_are_sent_are_sent_once(server, monkeypatch):
    monkeypatch.setattr("tasks.tracking.run.FLUSH_SECONDS", 0.0)
    run = TrackedRun(server, "id")  # type: ignore[arg-type]
    for step in range(1, 3000):
        run.log_metrics(step, {"loss": 0.5})
    run.flush()
    assert server.points == [("loss", step) for step in range(1, 3000)]
