"""Reports in the background: in order, without delay for the work, and with the newest state only."""

from __future__ import annotations

import contextvars
import logging
import threading

from tasks.background import BackgroundSender
from tests.waiting import PATIENCE_SECONDS


def test_calls_are_made_in_order_and_waited_for():
    made: list[int] = []
    sender = BackgroundSender("test")
    for number in range(20):
        sender.submit(lambda number=number: made.append(number))
    assert sender.wait(PATIENCE_SECONDS)
    assert made == list(range(20))


def test_work_does_not_wait_for_a_slow_server_and_an_old_state_is_not_sent():
    server, sent = threading.Event(), []
    sender = BackgroundSender("test")
    sender.submit(server.wait)
    for percent in range(100):
        sender.submit(lambda percent=percent: sent.append(percent), key="progress")
    assert not server.is_set() and sent == []  # submitted, although the server has not answered
    assert not sender.wait(0.1)
    server.set()
    assert sender.wait(PATIENCE_SECONDS)
    assert sent == [99]


def test_a_call_that_fails_is_logged_and_the_next_one_is_made(caplog):
    made = []
    sender = BackgroundSender("MLflow")
    with caplog.at_level(logging.WARNING):
        sender.submit(lambda: 1 / 0)
        sender.submit(lambda: made.append("next"))
        assert sender.wait(PATIENCE_SECONDS)
    assert made == ["next"]
    assert "MLflow: a report was not sent" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_call_sees_the_context_of_its_submission():
    running = contextvars.ContextVar("running", default="nothing")
    seen: list[str] = []
    sender = BackgroundSender("test")
    token = running.set("fine-tune")
    sender.submit(lambda: seen.append(running.get()))
    running.reset(token)
    assert sender.wait(PATIENCE_SECONDS)
    assert seen == ["fine-tune"]
