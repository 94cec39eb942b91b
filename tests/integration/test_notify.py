"""People hear of real runs at a real local server, and no file, answer or process shows the address."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.states import Running

from flows.collect import collect
from flows.retrain import retrain
from sdlora.core.errors import DataError
from sdlora.release.messages import Message
from sdlora.store.champions import champion_history, record_manual_change
from sdlora.store.image_store import ImageStore
from tasks.alive import FOLDER as ALIVE
from tasks.alive import crash_killed
from tasks.form import STYLE
from tasks.notify.addresses import parse_address
from tasks.notify.decisions import tell_decisions
from tasks.notify.failures import tell_unheard_failures
from tasks.notify.heartbeat import forget_heartbeat, load_heartbeat, save_heartbeat
from tasks.notify.recipients import Recipient, forget_recipient, save_recipient
from tasks.notify.silence import SILENT_TIMES, source_is_silent
from tasks.notify.tell import tell
from tests.stack import PROJECT, RunningStack, clean_environment
from tests.tiny import draw_images
from tests.waiting import wait_until
from tests.webhook import PARAMETER, SECRET, webhook


@pytest.fixture
def received():
    with webhook() as server:
        yield server


def add(home: Path, url: str, name: str = "team", **fields) -> None:
    address = parse_address("webhook", url)
    recipient = Recipient(name=name, kind="webhook", host=address.host, **fields)
    address.block.save(recipient.block_name, overwrite=True, _sync=True)
    save_recipient(home, recipient)


def files_with_secrets(folder: Path) -> list[Path]:
    secrets = (SECRET.encode(), PARAMETER.encode())
    return [
        path for path in folder.rglob("*") if path.is_file() and any(secret in path.read_bytes() for secret in secrets)
    ]


def test_a_run_tells_its_decision_once_and_a_run_without_news_tells_nothing(config, home, received):
    add(home, received.url, styles=("told",))
    style = {**STYLE.parameters(config), "name": "told"}
    release = retrain(**style, home=home)
    (title,) = received.titles
    assert title.startswith("told: version 1 ")
    assert ("champion" if release.promoted else "did not pass") in title
    assert release.reasons[0] in received.texts[0]
    assert f"Report: {release.report}" in received.texts[0]
    assert f"Picture: {release.grid}" in received.texts[0]

    retrain(**style, home=home)
    assert len(received.titles) == 1

    # As after a run that was killed between its decision and its message.
    with ImageStore.open(home) as store:
        with store.read() as session:
            history = champion_history(session, "told")
        with store.write() as session:
            record_manual_change(session, history, "rolled back", history.entries[0].version, "ana", "nicer")
    tell_decisions("told", home)
    assert received.titles[1:] == ["told: rolled back to version 1 by ana"]
    assert files_with_secrets(home) == []
    forget_recipient(home, "team")  # the state folder is that of all tests


def test_a_server_that_refuses_messages_fails_no_run(tmp_path, received, caplog):
    received.status = 500
    add(tmp_path, received.url)
    images = draw_images(tmp_path / "images", 3)
    collect(dataset="fine", sources=(str(images),), home=tmp_path)
    tell(tmp_path, Message(key="1", kind="failure", style="fine", subject="fine: a run failed"))
    assert len(received.titles) == 3
    assert "its server answered with status 500" in caplog.text
    assert SECRET not in caplog.text


def test_a_source_that_falls_silent_is_told_once_after_three_collections(tmp_path, received):
    add(tmp_path, received.url, on=("silence",))
    images, never = draw_images(tmp_path / "images", 3), str(tmp_path / "never")
    collect(dataset="shapes", sources=(str(images),), home=tmp_path)
    images.rename(tmp_path / "moved")
    for count in range(SILENT_TIMES - 1):
        source_is_silent(tmp_path, "shapes", str(images), f"absent {count}")
    assert received.titles == []
    with pytest.raises(DataError):
        collect(dataset="shapes", sources=(str(images),), home=tmp_path)
    assert received.titles == ["shapes: a source gives no images any more"]
    assert str(images) in received.texts[0]
    for source in (str(images), *[never] * SILENT_TIMES):
        source_is_silent(tmp_path, "shapes", source, "absent")
    assert len(received.titles) == 1

    (tmp_path / "moved").rename(images)
    collect(dataset="shapes", sources=(str(images),), home=tmp_path)
    for _ in range(SILENT_TIMES):
        source_is_silent(tmp_path, "shapes", str(images), "absent again")
    assert len(received.titles) == 2


def test_a_failed_run_is_told_with_our_words_but_without_those_of_other_libraries(tmp_path, received, monkeypatch):
    add(tmp_path, received.url, on=("failure",), styles=("failing",))
    with pytest.raises(DataError):
        collect(dataset="failing", sources=(str(tmp_path / "missing"),), home=tmp_path)
    assert received.titles == ["failing: a run failed"]
    assert "data.sources" in received.texts[0]

    monkeypatch.setattr("flows.collect.resolve_data", lambda *_: 1 / int("0"))
    with pytest.raises(ZeroDivisionError):
        collect(dataset="failing", home=tmp_path)
    assert "ZeroDivisionError. The log of the run has the details." in received.texts[1]
    assert "division by zero" not in received.texts[1]
    tell_unheard_failures(tmp_path)  # both are told already
    assert len(received.titles) == 2


def test_a_run_that_was_killed_is_told_when_it_is_found(tmp_path, received):
    add(tmp_path, received.url, styles=("killed",))
    (tmp_path / ALIVE).mkdir()
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(collect, parameters={"dataset": "killed"}, name="killed, today", state=Running())
        (tmp_path / ALIVE / str(run.id)).touch()
        assert crash_killed(tmp_path) == ["killed, today"]
        received.wait_for("killed: a run was cut off")
        tell_unheard_failures(tmp_path)
        client.delete_flow_run(run.id)
    assert received.titles == ["killed: a run was cut off"]
    assert "killed, today" in received.texts[0]


def test_the_address_of_the_heartbeat_is_kept_and_forgotten(tmp_path, received):
    assert load_heartbeat(tmp_path) is None
    assert save_heartbeat(tmp_path, received.url) == "127.0.0.1"
    assert load_heartbeat(tmp_path) == received.url
    assert files_with_secrets(tmp_path) == []
    forget_heartbeat(tmp_path)
    assert load_heartbeat(tmp_path) is None


def command(home: Path, *words: str, text: str = "") -> str:
    typed = [sys.executable, "-m", "deployments.cli", "notify", *words, "--home", str(home)]
    done = subprocess.run(typed, input=text, capture_output=True, text=True, cwd=PROJECT, env=clean_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_under_sdlora_up_failed_and_killed_runs_are_heard_of_and_the_heart_beats(running_stack: RunningStack, received):
    home = running_stack.home
    said = command(home, "add", "team", "--kind", "webhook", text=f"{received.url}\n")
    said += command(home, "test", "team") + command(home, "list", "--json")
    assert received.titles == ["sdlora: test message"]
    said += command(home, "heartbeat", text=f"{received.url}&beat\n")
    deployment = running_stack.api("deployments/name/collect/collect")
    try:
        gone = {"dataset": "gone", "sources": [str(home / "missing")]}
        failed = running_stack.api(f"deployments/{deployment['id']}/create_flow_run", {"parameters": gone})
        assert running_stack.finished(failed["id"])["type"] == "FAILED"
        text = received.wait_for("gone: a run failed")
        assert f"Run: {running_stack.prefect}/runs/flow-run/{failed['id']}" in text

        images = draw_images(home.parent / "many", 400, seed=8)
        many = {"dataset": "many", "sources": [str(images)]}
        killed = running_stack.api(f"deployments/{deployment['id']}/create_flow_run", {"parameters": many})
        kill_when_running(home, killed["id"])
        assert running_stack.finished(killed["id"])["type"] == "CRASHED"
        assert "-9" in received.wait_for("many: a run was cut off")

        lines = [" ".join(line) for line in command_lines()]
        assert not [line for line in lines if SECRET in line or PARAMETER in line]
        documents = str(running_stack.api("block_documents/filter", {}))
        assert "sdlora-team" in documents
        events = running_stack.api("events/filter", {"filter": {"event": {"prefix": ["sdlora."]}}})
        assert {event["event"] for event in events["events"]} >= {"sdlora.failure"}
        run = running_stack.api(f"flow_runs/{failed['id']}")
        for shown in (said, documents, running_stack.said, str(events), str(run)):
            assert SECRET not in shown
            assert PARAMETER not in shown
        assert files_with_secrets(home) == []

        received.wait_for_call("&beat")
        well, full, idle, blind = beats_of(running_stack)
        assert well == "[]"
        assert "are free on the disk" in full
        assert "no worker answers" in idle
        assert "the watcher does not work" in blind
    finally:
        command(home, "remove", "team")
        command(home, "heartbeat", "--off")
    assert "sdlora-team" not in str(running_stack.api("block_documents/filter", {}))


def beats_of(stack: RunningStack) -> list[str]:
    """What a heartbeat says if all is well, if the disk is nearly full, without a worker, and without a watcher."""
    code = f"""
from pathlib import Path
from deployments.servers import heartbeat
home = Path({str(stack.home)!r})
print(heartbeat.beat(home))
heartbeat.MIN_FREE_BYTES = 2**60
print(heartbeat.beat(home))
heartbeat._has_worker = lambda: False
print(heartbeat.beat(home))
heartbeat.watcher_works = lambda home: False
print(heartbeat.beat(home))
"""
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, cwd=PROJECT, env=stack.environment())
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    return done.stdout.splitlines()


def kill_when_running(home: Path, run_id: str) -> None:
    def members() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("PREFECT__FLOW_RUN_ID") == run_id:
                    found.append(process)
        return found

    # Found while they import their libraries, so that the run does not end between its beginning and the kill.
    found = wait_until(members, "the start of the run's process")
    while not (home / ALIVE / run_id).exists():
        assert any(process.is_running() for process in found), "the run ended before it began"
        time.sleep(0.002)
    for process in [*found, *members()]:
        with contextlib.suppress(psutil.Error):
            process.kill()


def command_lines() -> list[list[str]]:
    found = []
    for process in psutil.process_iter():
        try:
            found.append(process.cmdline())
        except psutil.Error:
            continue
    return found
