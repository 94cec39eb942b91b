"""The watcher of sources: what is collected when, without any server."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from deployments.arrivals import watcher as watching
from deployments.arrivals.local_sources import LocalSources
from deployments.arrivals.watcher import Watcher
from deployments.environment import PROJECT, environment
from deployments.servers.running import watcher_works
from deployments.servers.services import Service, listen_at
from deployments.styles.files import style_file
from sdlora.store.image_store import ImageStore
from tests.settings import make_style
from tests.stack import request
from tests.tiny import draw_images
from tests.waiting import wait_until


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return draw_images(tmp_path / "images", 4)


@pytest.fixture
def watcher(tmp_path, images, monkeypatch):
    monkeypatch.setattr(watching, "start_ready", lambda *_: [])
    make_style(tmp_path / "home", "mine", images, trigger={"min_new_images": 1})
    one = Watcher(tmp_path / "home", settle_seconds=0.3)
    yield one
    one.close()


def count(home: Path) -> int:
    with ImageStore.open(home) as store:
        return store.dataset("mine").counts().total


def tick_until(watcher: Watcher, total: int) -> None:
    def ticked() -> bool:
        watcher.tick()
        return count(watcher.home) == total

    wait_until(ticked, f"the collection of {total} images")


def test_images_that_are_there_and_images_that_come_are_collected_and_unfinished_ones_are_left(watcher, images):
    time.sleep(0.3)  # the drawn files are whole
    tick_until(watcher, 4)
    content = draw_images(images.parent / "more", 2, seed=1)
    first, second = sorted(content.glob("*.png"))
    (images / "new.png").write_bytes(first.read_bytes())
    (images / "partial.png.part").write_bytes(second.read_bytes())
    tick_until(watcher, 5)
    (images / "partial.png.part").rename(images / "partial.png")
    tick_until(watcher, 6)


def test_a_style_without_a_trigger_is_not_watched_until_its_file_has_one(watcher, images):
    make_style(watcher.home, "mine", images)
    watcher.tick()
    assert watcher.styles == [] and not watcher.announce("mine")
    make_style(watcher.home, "mine", images, trigger={"min_new_images": 2})
    watcher._styles_at = 0.0
    watcher.tick()
    assert [style.name for style in watcher.styles] == ["mine"]
    assert watcher.announce("mine") and watcher.announce(str(images)) and not watcher.announce("s3://other")
    style_file(watcher.home, "mine").unlink()
    watcher._styles_at = 0.0
    watcher.tick()
    assert watcher.styles == []


def test_a_folder_that_vanishes_and_returns_is_noticed(tmp_path, images):
    sources = LocalSources(settle_seconds=0.1)
    sources.follow([images])

    def noticed() -> None:
        wait_until(lambda: sources.whole() == [images], "a change of the folder")

    noticed()
    images.rename(tmp_path / "away")
    noticed()
    (tmp_path / "away").rename(images)
    noticed()
    sources.close()


def test_others_see_whether_the_process_works_and_its_receiver_keeps_the_port_of_sdlora_up(tmp_path):
    with listen_at(0, "receiver", "--receiver-port") as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/arrived"
        command = [sys.executable, "-m", "deployments.arrivals.watcher", "--receiver"]
        home = tmp_path / "home"
        assert not watcher_works(home)
        service = Service("watcher", command, environment(home), home / "logs" / "watcher.log", PROJECT, listener)
        try:
            wait_until(lambda: service.check() or watcher_works(home), "the start of the watcher")
            assert request(url, {"Authorization": "Bearer wrong"})[0] == 401
        finally:
            service.stop()
        assert not watcher_works(home)
