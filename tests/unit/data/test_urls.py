from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from sdlora.core.errors import DataError
from sdlora.data.collect import collect
from sdlora.data.collect_report import CollectReport
from sdlora.data.config import DataConfig
from sdlora.data.sources import UnreadableItemError, download, internet
from sdlora.data.sources.download import Downloader, checked_url, opt_out
from sdlora.data.sources.internet import is_public, resolve
from sdlora.data.sources.memory import MemoryBudget
from sdlora.data.threads import TryLaterError
from sdlora.store.dataset import Dataset
from tests.stores import opened_dataset
from tests.unit.data.drawing import drawing, encoded
from tests.unit.data.web import Answer, Web, serving
from tests.waiting import PATIENCE_SECONDS, wait_until

CONFIG = DataConfig(allow_private_addresses=True, url_timeout_seconds=60.0, url_total_seconds=300.0, url_retries=2)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as opened:
        yield opened


def picture(seed: int, **headers: str) -> Answer:
    return 200, {name.replace("_", "-"): value for name, value in headers.items()}, encoded(drawing(seed))


def url_list(folder: Path, *urls: str) -> Path:
    path = folder / "urls.txt"
    path.write_text("# images\n\n" + "".join(url + "\n" for url in urls))
    return path


def reasons(report: CollectReport) -> dict[str, str]:
    return {skipped.path.rpartition("/")[2]: skipped.reason for skipped in report.skipped}


def test_a_list_is_fetched_once_and_known_urls_are_not_asked_for_again(
    dataset: Dataset, folder: Path, web: Web
) -> None:
    web.pages = {f"/{seed}.png": picture(seed) for seed in range(6)}
    path = url_list(folder, *(web.url(f"/{seed}.png") for seed in range(5)), web.url("/0.png"))
    report = collect(dataset, str(path), CONFIG)
    assert (report.source, report.files, report.new, report.skipped) == ("urls.txt", 5, 5, ())
    path = url_list(folder, *(web.url(f"/{seed}.png") for seed in range(6)))
    report = collect(dataset, str(path), CONFIG)
    assert (report.new, report.known) == (1, 5)
    assert set(web.asked.values()) == {1}
    assert dataset.store.read_bytes(dataset.images()[0].sha256).startswith(b"\x89PNG")


def test_tables_bring_captions_and_licences(dataset: Dataset, folder: Path, web: Web) -> None:
    web.pages = {f"/{seed}.png": picture(seed) for seed in range(3)}
    (folder / "list.csv").write_text(f'url,caption,license\n{web.url("/0.png")},"a tree, in snow",CC0\n')
    rows = {"image_url": [web.url("/1.png")], "text": ["a bird"], "licence": ["MIT"]}
    pyarrow.parquet.write_table(pyarrow.table(rows), folder / "list.parquet")
    (folder / "list.jsonl").write_text(json.dumps({"url": web.url("/2.png"), "text": ["one", "two"]}) + "\n")
    for name in ("list.csv", "list.parquet", "list.jsonl"):
        assert collect(dataset, str(folder / name), CONFIG).new == 1
    assert [(image.captions, image.licence) for image in dataset.images()] == [
        (("a tree, in snow",), "CC0"),
        (("a bird",), "MIT"),
        (("one", "two"), None),
    ]
    (folder / "other.csv").write_text("name,place\na,b\n")
    with pytest.raises(DataError, match="has the columns name, place; expected one of url"):
        collect(dataset, str(folder / "other.csv"), CONFIG)


def test_what_fails_in_passing_is_tried_again_and_a_host_gets_the_pause_it_asks_for(
    dataset: Dataset, folder: Path, web: Web
) -> None:
    began: list[float] = []

    def busy(_: BaseHTTPRequestHandler) -> Answer:
        began.append(time.monotonic())
        return (429, {"Retry-After": "1"}, b"") if len(began) == 1 else picture(1)

    web.pages = {"/busy.png": busy, "/broken.png": (503, {}, b""), "/gone.png": (404, {}, b"")}
    report = collect(dataset, str(url_list(folder, *map(web.url, web.pages))), CONFIG)
    assert report.new == 1
    assert began[1] - began[0] >= 1.0
    assert reasons(report) == {"broken.png": "HTTP 503, 3 times", "gone.png": "HTTP 404"}
    assert (web.asked["/broken.png"], web.asked["/gone.png"]) == (3, 1)


def test_a_host_is_asked_a_few_at_a_time(dataset: Dataset, folder: Path, web: Web) -> None:
    three = threading.Barrier(3)

    def together(_: BaseHTTPRequestHandler) -> Answer:
        three.wait(PATIENCE_SECONDS)  # asked one after the other, none would ever be answered
        return picture(1)

    web.pages = {f"/{number}.png": together for number in range(12)}
    report = collect(
        dataset, str(url_list(folder, *map(web.url, web.pages))), CONFIG.model_copy(update={"url_per_host": 3})
    )
    assert (report.files, report.skipped_count, web.most) == (12, 0, 3)


def test_hosts_that_opt_out_of_training_are_heard(dataset: Dataset, folder: Path, web: Web) -> None:
    web.pages = {
        "/no.png": picture(1, X_Robots_Tag="noindex, noai"),
        "/nor.png": picture(2, X_Robots_Tag="*: noimageai"),
        "/yes.png": picture(3, X_Robots_Tag="otherbot: noai, noindex"),
    }
    path = url_list(folder, *map(web.url, web.pages))
    report = collect(dataset, str(path), CONFIG)
    assert report.new == 1
    assert reasons(report) == {
        "no.png": "its host opts out of training: X-Robots-Tag: noai (respect_noai)",
        "nor.png": "its host opts out of training: X-Robots-Tag: noimageai (respect_noai)",
    }
    assert collect(dataset, str(path), CONFIG.model_copy(update={"respect_noai": False})).new == 2
    assert opt_out("noarchive") is None


def test_too_much_no_image_too_slow_and_cut_off_are_refused_with_the_reason(
    dataset: Dataset, folder: Path, web: Web
) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> Answer:
        handler.close_connection = True
        return 200, {"Content-Length": ""}, bytes(3_000_000)

    def cut(handler: BaseHTTPRequestHandler) -> Answer:
        handler.close_connection = True
        return 200, {"Content-Length": "5000"}, b"x" * 100

    web.pages = {
        "/large.png": (200, {}, bytes(2_000_000)),
        "/endless.png": endless,
        "/cut.png": cut,
        "/page.png": (200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>"),
    }
    config = CONFIG.model_copy(update={"max_file_bytes": 1_000_000, "url_retries": 0})
    report = collect(dataset, str(url_list(folder, *map(web.url, web.pages))), config)
    told = reasons(report)
    assert report.new == 0
    assert told["large.png"] == "2,000,000 bytes, more than max_file_bytes = 1,000,000"
    assert told["endless.png"] == "more than max_file_bytes = 1,000,000"
    assert told["cut.png"].endswith("1 times")
    assert told["page.png"] == "no image but text/html"

    answered = threading.Event()

    def silent(_: BaseHTTPRequestHandler) -> Answer:
        answered.wait(PATIENCE_SECONDS)
        return picture(1)

    web.pages = {"/silent.png": silent}
    config = config.model_copy(update={"url_timeout_seconds": 0.5})
    report = collect(dataset, str(url_list(folder, web.url("/silent.png"))), config)
    answered.set()
    assert reasons(report) == {"silent.png": "ReadTimeout: timed out, 1 times"}


def test_with_recheck_only_what_changed_is_sent_again(dataset: Dataset, folder: Path, web: Web) -> None:
    state = {"etag": '"one"', "seed": 1}

    def page(handler: BaseHTTPRequestHandler) -> Answer:
        if handler.headers.get("If-None-Match") == state["etag"]:
            return 304, {"Content-Length": "0"}, b""
        return picture(int(state["seed"]), ETag=str(state["etag"]))

    web.pages = {"/a.png": page}
    path, again = str(url_list(folder, web.url("/a.png"))), CONFIG.model_copy(update={"recheck_urls": True})
    assert collect(dataset, path, CONFIG).new == 1
    report = collect(dataset, path, again)
    assert (report.known, report.bytes_read, web.asked["/a.png"]) == (1, 0, 2)
    state.update(etag='"zwölf"', seed=2)
    assert collect(dataset, path, again).new == 1
    assert collect(dataset, path, again).files == 1  # though a request's headers are ASCII


def test_tomorrows_signature_is_the_same_file_and_no_signature_is_recorded(
    dataset: Dataset, folder: Path, web: Web
) -> None:
    signed = "/cat?X-Amz-Date={0}&X-Amz-Expires=9&X-Amz-Signature=S3cr3t{0}"
    token, by_token = "/dog.png?size=9&token=S3cr3t{}", "/image.php?token=S3cr3t{}"
    web.pages = {signed.format(day): picture(1) for day in range(3)}
    web.pages |= {token.format(day): picture(2) for day in range(3)}
    web.pages |= {by_token.format(number): picture(3 + number) for number in range(2)}
    for day in range(3):
        urls = [signed.format(day), token.format(day), *(by_token.format(number) for number in range(2))]
        report = collect(dataset, str(url_list(folder, *map(web.url, urls))), CONFIG)
        assert (report.files, report.new) == (4, 4 if day == 0 else 0)
    assert web.asked.total() == 4
    files = [file for image in dataset.images() for file in image.files]
    assert len(files) == 4
    assert not [file for file in files if "S3cr3t" in file]
    assert f"urls.txt/{web.url('/dog.png?size=9')}" in files


def test_files_that_only_tokens_tell_apart_are_all_fetched(dataset: Dataset, folder: Path, web: Web) -> None:
    web.pages = {f"/render.png?token=S3cr3t{number}": picture(number) for number in range(3)}
    web.pages["/render.png"] = picture(3)
    urls = list(map(web.url, web.pages))
    assert collect(dataset, str(url_list(folder, *urls)), CONFIG).new == 4
    assert collect(dataset, str(url_list(folder, *reversed(urls))), CONFIG).new == 0
    assert set(web.asked.values()) == {1}


def test_of_several_signatures_of_one_file_one_that_is_valid_suffices(dataset: Dataset, folder: Path, web: Web) -> None:
    urls = [f"/cat?X-Goog-Date={day}&X-Goog-Signature=S3cr3t{day}" for day in range(3)]
    web.pages = {urls[0]: (403, {}, b""), urls[1]: picture(1), urls[2]: (403, {}, b"")}
    report = collect(dataset, str(url_list(folder, *map(web.url, urls))), CONFIG)
    assert (report.files, report.new, report.skipped) == (1, 1, ())


def test_what_is_told_of_a_refused_address_holds_no_secret(dataset: Dataset, folder: Path, web: Web) -> None:
    urls = [
        web.url("/gone.png?token=S3cr3t"),
        web.url("/a.png").replace("//", "//user:S3cr3t@"),
        "http://user:S3cr3t@[::1/a.png",
    ]
    report = collect(dataset, str(url_list(folder, *urls)), CONFIG)
    assert report.skipped_count == 3
    assert "S3cr3t" not in repr(report)
    assert "it carries a user name or password" in repr(report)


@pytest.mark.parametrize(
    "address",
    (
        "127.0.0.1 127.8.8.8 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 240.0.0.1 "
        "255.255.255.255 192.0.2.1 198.18.0.1 ::1 :: fe80::1 fe80::1%eth0 fc00::1 ff02::1 ::ffff:127.0.0.1 "
        "::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: 2002:a00:1:: ::127.0.0.1 2001:db8::1 nonsense"
    ).split(),
)
def test_addresses_off_the_public_internet_are_known_in_every_dress(address: str) -> None:
    assert not is_public(address)


def test_public_addresses_are_public() -> None:
    assert all(map(is_public, ("1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1")))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "127.1", "[::1]", "0"]
)
def test_this_machine_is_never_asked_however_it_is_written(dataset: Dataset, folder: Path, web: Web, host: str) -> None:
    web.pages = {"/a.png": picture(1)}
    closed = CONFIG.model_copy(update={"allow_private_addresses": False, "url_retries": 0})
    report = collect(dataset, str(url_list(folder, web.url("/a.png", host))), closed)
    assert (report.new, web.asked.total()) == (0, 0)
    assert "not on the public internet" in report.skipped[0].reason or "cannot be resolved" in report.skipped[0].reason


def test_what_a_cloud_tells_of_itself_is_never_asked_for(dataset: Dataset, folder: Path) -> None:
    report = collect(dataset, str(url_list(folder, "http://169.254.169.254/latest", "http://0.0.0.0/")), CONFIG)
    assert {skipped.reason for skipped in report.skipped} == {
        "169.254.169.254 is not on the public internet (allow_private_addresses)",
        "0.0.0.0 is not on the public internet (allow_private_addresses)",
    }


def test_a_redirect_inwards_is_refused_where_it_connects(
    dataset: Dataset, folder: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    # For this test the server's own address counts as public, and nothing else of this machine does.
    real = is_public
    monkeypatch.setattr(internet, "is_public", lambda address: address == "127.0.0.1" or real(address))
    inward = {
        "/a.png": "http://169.254.169.254/latest/meta-data",
        "/b.png": f"http://[::1]:{web.port}/secret.png",
        "/c.png": "file:///etc/passwd",
        "/d.png": "http://[::ffff:10.0.0.1]/",
        "/e.png": "/fine.png",
        "/f.png": "/f.png",
    }
    web.pages = {path: (302, {"Location": target}, b"") for path, target in inward.items()}
    web.pages |= {"/fine.png": picture(1), "/secret.png": picture(2)}
    closed = CONFIG.model_copy(update={"allow_private_addresses": False})
    report = collect(dataset, str(url_list(folder, *map(web.url, inward))), closed)
    told = reasons(report)
    assert report.new == 1
    assert "169.254.169.254 is not on the public internet" in told["a.png"]
    assert "::1 is not on the public internet" in told["b.png"]
    assert told["c.png"] == "its scheme is file, expected http or https"
    assert "not on the public internet" in told["d.png"]
    assert told["f.png"] == "more than 5 redirects"
    assert web.asked["/secret.png"] == 0


def test_the_address_that_was_checked_is_the_one_that_is_used(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.pages = {"/a.png": picture(1)}
    monkeypatch.setattr(internet, "is_public", lambda address: address == "127.0.0.1")
    answers = iter((["127.0.0.1"], ["10.0.0.1"], ["127.0.0.1", "192.168.0.1"]))
    asked: list[str] = []

    def rebinding(host: str, _: int) -> list[str]:
        asked.append(host)
        return next(answers)

    config = CONFIG.model_copy(update={"allow_private_addresses": False})
    url = web.url("/a.png", "images.example")  # no resolver but ours knows this name
    first = Downloader(config, rebinding)
    assert first.fetch(url).data == picture(1)[2]
    assert asked == ["images.example"]
    for _ in range(2):  # a name that now means a private address, or that one, too
        with pytest.raises(UnreadableItemError, match="not on the public internet"):
            Downloader(config, rebinding).fetch(url)
    assert web.asked["/a.png"] == 1


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://host/a.png", "file:///a.png", "http://", "http:///a.png", "http:host/a.png", "a.png", "//host/a.png"),
        *("http://a b/", "http://a\tb/", "http://host/a\n.png", "http://host/\x7f.png", "http://host\xa0/a.png"),
        *("http://u:p@host/", "http://u@host/", "http://host:80@other/", "http://a\\@b/", "http://user:S3cr3t"),
        *("http://[::1", "http://[::1]x/", "http://[v1.x]/", "http://1.2.3.256/", "http://h\u2100.example/"),
        *("http://host:99999/", "http://host:1_0/", "http://host:-1/", "http://host:+80/", "http://host:\u0663/"),
        *("http://host/\ud800.png", f"http://{'a' * 70}é.example/"),
    ],
)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(UnreadableItemError) as caught:
        checked_url(url)
    assert "S3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://bücher.example/ä%20b.png#x", "https://xn--bcher-kva.example/%C3%A4%20b.png"),
        ("HTTP://Host:80/%C3%A4?q=ä|b", "http://host/%C3%A4?q=%C3%A4|b"),
        ("http://host/a/../b;v=2.png?x=%2F", "http://host/b;v=2.png?x=%2F"),
        ("http://[2606:4700::1111]:8080/a", "http://[2606:4700::1111]:8080/a"),
    ],
)
def test_addresses_are_sent_in_ascii(url: str, sent: str) -> None:
    assert str(checked_url(url)) == sent
    assert checked_url(sent) == checked_url(url)


def test_the_whole_address_is_asked_for_under_its_hosts_name(dataset: Dataset, folder: Path, web: Web) -> None:
    hosts: list[str | None] = []

    def page(handler: BaseHTTPRequestHandler) -> Answer:
        hosts.append(handler.headers.get("Host"))
        return picture(1)

    web.pages = {"/a;v=2.png?x=%2F&y": page}  # `urlparse` would cut the `;v=2.png` off
    report = collect(dataset, str(url_list(folder, web.url("/a;v=2.png?x=%2F&y#top"))), CONFIG)
    assert (report.new, hosts) == (1, [f"127.0.0.1:{web.port}"])


def test_a_redirect_in_utf8_is_followed_and_one_to_nowhere_refused(dataset: Dataset, folder: Path, web: Web) -> None:
    targets = {"/a.png": "http://[::1", "/b.png": "http://host:1_0/", "/c.png": "/ä.png".encode().decode("latin-1")}
    targets["/d.png"] = f"http://user:S3cr3t@127.0.0.1:{web.port}/%C3%A4.png"
    web.pages = {path: (302, {"Location": target}, b"") for path, target in targets.items()}
    web.pages["/%C3%A4.png"] = picture(1)
    report = collect(dataset, str(url_list(folder, *map(web.url, targets))), CONFIG)
    assert report.new == 1
    assert reasons(report) == {
        "a.png": "no URL: its host or port cannot be understood",
        "b.png": "no URL: its host or port cannot be understood",
        "d.png": "it carries a user name or password",
    }
    assert web.asked["/%C3%A4.png"] == 1


def test_a_letter_that_no_encoding_has_is_the_problem_of_its_row(dataset: Dataset, folder: Path, web: Web) -> None:
    web.pages = {"/a.png": picture(1)}
    rows = [{"url": web.url("/\ud800.png")}, {"url": web.url("/a.png")}]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report = collect(dataset, str(folder / "list.jsonl"), CONFIG)
    assert (report.new, report.skipped_count) == (1, 1)
    assert report.skipped[0].path.endswith("/\\ud800.png")


def test_numbers_in_odd_spellings_are_read_before_they_are_judged() -> None:
    assert resolve("2130706433", 80) == ["127.0.0.1"]


def test_a_host_that_always_fails_is_left_alone(
    dataset: Dataset, folder: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MAX_HOST_FAILURES", 5)
    urls = [web.url(f"/{number}.png") for number in range(30)]
    web.pages = {f"/{number}.png": (503, {"Retry-After": "0"}, b"") for number in range(30)}
    report = collect(dataset, str(url_list(folder, *urls)), CONFIG.model_copy(update={"url_per_host": 1}))
    assert report.skipped_count == 30
    assert web.asked.total() <= 6


def _collect(home: Path, path: Path) -> None:
    with opened_dataset(home) as dataset:
        collect(dataset, str(path), CONFIG)


def test_a_killed_download_goes_on_where_it_was(tmp_path: Path, web: Web) -> None:
    is_killed = threading.Event()

    def waiting(seed: int) -> Callable[[BaseHTTPRequestHandler], Answer]:
        def page(_: BaseHTTPRequestHandler) -> Answer:
            is_killed.wait(PATIENCE_SECONDS)
            return picture(seed)

        return page

    web.pages = {f"/{seed}.png": picture(seed) if seed < 600 else waiting(seed) for seed in range(700)}
    path = url_list(tmp_path, *map(web.url, web.pages))
    process = multiprocessing.get_context("spawn").Process(target=_collect, args=(tmp_path / "home", path))
    process.start()
    wait_until(lambda: len(web.asked) > 600 or not process.is_alive(), "the download of most images")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    is_killed.set()
    with opened_dataset(tmp_path / "home") as dataset:
        there = {image.files[0].removeprefix(f"urls.txt/{web.url('')}") for image in dataset.images()}
        report = collect(dataset, str(path), CONFIG)
        assert (report.new + len(there), dataset.counts().total) == (700, 700)
    assert 100 <= len(there) < 700
    assert {web.asked[path] for path in there} == {1}  # what was recorded is not asked for again


def test_bodies_of_parallel_downloads_share_the_sources_memory(dataset: Dataset, folder: Path, web: Web) -> None:
    def slow(_: BaseHTTPRequestHandler) -> Answer:
        time.sleep(0.2)
        return 200, {}, bytes([len(web.asked)]) * 700_000

    web.pages = {f"/{number}.png": slow for number in range(4)}
    memory = MemoryBudget(1_000_000)
    downloader = Downloader(CONFIG, memory=memory)
    first = downloader.fetch(web.url("/0.png"))
    assert memory.used == 700_000
    with pytest.raises(TryLaterError):  # there is no room next to the first
        downloader.fetch(web.url("/1.png"))
    assert memory.used == len(first.data) == 700_000
    del first
    assert memory.used == 0
    config = CONFIG.model_copy(update={"max_source_memory_bytes": 2**20, "url_retries": 9})
    report = collect(dataset, str(url_list(folder, *map(web.url, web.pages))), config)
    assert (report.files, report.skipped_count) == (4, 0)
