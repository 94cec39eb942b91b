"""Styles as files of the state folder: made, found, run, and broken ones that stop no other."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import deployments.styles.watermark
from deployments.cli.app import app
from deployments.environment import DEMO_CONFIG
from deployments.styles.files import DEMO_STYLE, load_styles, style_file
from deployments.styles.watermark import remember, unchanged_release
from sdlora.config import load_config
from sdlora.core.schedule import ScheduleConfig
from sdlora.core.trigger import TriggerConfig
from sdlora.data.clean import clean
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import make_snapshot
from sdlora.processes.identity import ProcessIdentity
from sdlora.records.champions import ScoredVersion
from sdlora.records.decision import Decision
from sdlora.store.champions import record_decision
from sdlora.store.image_store import ImageStore
from sdlora.store.inputs import dataset_digest
from sdlora.store.lineage import record_version
from sdlora.store.selection import Selection
from sdlora.store.tables.base import utc_now
from sdlora.store.tables.versions import SnapshotTable
from sdlora.store.tickets import Request, new_row, record_skipped
from tasks.results import Release, RunRef
from tests.settings import make_style
from tests.tiny import draw_images

VERSION = ScoredVersion(3, "f" * 64, "d" * 64, "6" * 64, 8, "kid", 0.25, 0.9)
DECISION = Decision(
    promote=True, reasons=("better",), checks=(), duel_digest="d" * 64, candidate_digest="f" * 64, champion_digest=None
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return draw_images(tmp_path / "images", 4)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def sdlora(home: Path, *arguments: str):
    return CliRunner().invoke(app, ["--home", str(home), *arguments])


def refused(home: Path, *arguments: str) -> str:
    done = sdlora(home, *arguments)
    assert done.exit_code == 1 and done.stderr.startswith("Error: "), done.output
    return " ".join(done.stderr.split())


def finish(home: Path, name: str) -> None:
    """Leave what a finished run of a style leaves."""
    run = RunRef(digest="d" * 64, folder=home / "runs" / name / "d")
    release = Release(name=name, version=1, new=True, promoted=True, reasons=("better",), run=run)
    for file in (release.report, release.grid):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    config = load_config(style_file(home, name))
    with ImageStore.open(home) as store:
        for image in filter(Path.is_file, Path(config.data.sources[0]).glob("*.png")):
            store.dataset(name).add_image(image.read_bytes())
        with store.read() as session:
            release = release.model_copy(update={"inputs": dataset_digest(session, config.data.dataset or name)})
    remember(config, home, release)


def is_unchanged(home: Path, name: str) -> bool:
    return unchanged_release(load_config(style_file(home, name)), home) is not None


def test_a_new_style_is_a_file_that_loads_with_the_images_by_absolute_path(home, images, monkeypatch):
    monkeypatch.chdir(images.parent)
    done = sdlora(home, "new", "my-style", "--images", "images", "--images", "s3://bucket/art")
    assert done.exit_code == 0, done.output
    assert "4 images" in done.output and "sdlora run my-style" in done.output and "sd1" in done.output
    (style,) = load_styles(home)
    assert style.problem is None and style.config is not None
    assert style.config.data.sources == (str(images), "s3://bucket/art")


@pytest.mark.parametrize("name", ["it's: #1", 'a "b"', "ö – 漢"])
def test_a_folder_of_any_name_comes_back_from_the_file(home, tmp_path, name):
    folder = draw_images(tmp_path / name, 2)
    assert sdlora(home, "new", "my-style", "--images", str(folder)).exit_code == 0
    assert load_config(style_file(home, "my-style")).data.sources == (str(folder),)


def test_the_schedule_in_the_comments_of_a_new_style_works_once_it_is_no_comment(home, images, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    sdlora(home, "new", "my-style", "--images", str(images))
    file = style_file(home, "my-style")
    assert load_config(file).schedule == ScheduleConfig()
    file.write_text(re.sub(r"^# (schedule:|  (?:cron|timezone|window):)", r"\1", file.read_text(), flags=re.MULTILINE))
    written = ScheduleConfig(cron="0 3 * * *", timezone="Asia/Tokyo", window="20:00-07:00")
    assert load_config(file).schedule == written


def test_the_trigger_in_the_comments_of_a_new_style_works_once_it_is_no_comment(home, images):
    sdlora(home, "new", "my-style", "--images", str(images))
    file = style_file(home, "my-style")
    assert not load_config(file).trigger.is_on
    keys = r"^# (trigger:|  (?:min_new_images|quiet_minutes):)"
    file.write_text(re.sub(keys, r"\1", file.read_text(), flags=re.MULTILINE))
    assert load_config(file).trigger == TriggerConfig(min_new_images=1, quiet_minutes=10)


def test_a_list_and_a_collection_say_what_new_images_wait_for(home, images, tmp_path):
    make_style(home, "mine", images, trigger={"min_new_images": 30})
    said = sdlora(home, "collect", str(images), "--style", "mine").output
    assert "30 new images start a run" in said
    assert "30 new images start a run" in sdlora(home, "styles").output
    (listed,) = json.loads(sdlora(home, "styles", "--json").output)["styles"]
    assert listed["is_ready"] is False and "30 new images start a run" in listed["trigger_reason"]


def test_a_schedule_is_no_news(home, images):
    file = make_style(home, "mine", images)
    finish(home, "mine")
    with file.open("a") as stream:
        stream.write("schedule:\n  cron: 0 3 * * *\n")
    assert load_config(file).schedule.cron and is_unchanged(home, "mine")
    with file.open("a") as stream:
        stream.write("training:\n  steps: 3\n")
    assert not is_unchanged(home, "mine")


def test_the_next_run_is_listed_as_the_file_says(home, images):
    hour = (datetime.now(UTC).hour + 12) % 24  # hours away, so that it does not pass meanwhile
    make_style(home, "mine", images, schedule={"cron": f"0 {(hour + 9) % 24} * * *", "timezone": "Asia/Tokyo"})
    make_style(home, "by-hand", images)
    done = sdlora(home, "styles", "--json")
    listed = {style["name"]: style["next_run_at"] for style in json.loads(done.stdout)["styles"]}
    assert listed["by-hand"] is None
    moment = datetime.fromisoformat(listed["mine"])
    assert (moment.astimezone(UTC).hour, moment.minute) == (hour, 0)
    assert 0 < (moment - datetime.now(UTC)).total_seconds() <= 24 * 3600
    done = sdlora(home, "styles")
    assert moment.astimezone().strftime("%Y-%m-%d %H:%M") in done.output and "only while sdlora up runs" in done.output


def test_nothing_is_written_of_a_style_that_could_not_run(home, images, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no such file" in refused(home, "new", "a", "--images", str(tmp_path / "absent"))
    assert "no image files" in refused(home, "new", "a", "--images", str(tmp_path / "empty"))
    assert "My Style" in refused(home, "new", "My Style", "--images", str(images))
    assert "revision" in refused(home, "new", "a", "--images", str(images), "--base", "x/y", "--revision", "main")
    assert "missing.safetensors" in refused(
        home, "new", "a", "--images", str(images), "--base", "./missing.safetensors"
    )
    assert "demo" in refused(home, "new", DEMO_STYLE, "--images", str(images))
    assert "the deployment for any style" in refused(home, "new", "retrain", "--images", str(images))
    assert "--images: an empty text" in refused(home, "new", "a", "--images", "")
    assert load_styles(home) == []


def test_an_existing_style_is_not_overwritten(home, images):
    before = make_style(home, "mine", images).read_text()
    assert "There is a style mine" in refused(home, "new", "mine", "--images", str(images))
    assert style_file(home, "mine").read_text() == before


def test_without_a_name_the_only_style_runs_and_of_several_one_has_to_be_named(home, images):
    said = refused(home, "run")
    assert "sdlora new" in said and "sdlora demo" in said
    make_style(home, "comics", images)
    assert "comics" in sdlora(home, "run", "--show-config").output
    make_style(home, "props", images)
    assert "comics, props" in refused(home, "run")
    assert "props" in sdlora(home, "run", "props", "--show-config").output
    assert "Nearest: comics" in refused(home, "run", "comic")


def test_the_demo_is_a_style_by_its_name():
    assert load_config(DEMO_CONFIG).name == DEMO_STYLE


def test_one_name_means_one_style(home, images, tmp_path):
    file = make_style(home, "comics", images)
    other = tmp_path / "other.yaml"
    other.write_text(file.read_text())
    assert "two styles of the name comics" in refused(home, "run", "--config", str(other))
    file.rename(file.with_name("props.yaml"))
    assert "expected props" in refused(home, "run", "props")
    make_style(home, DEMO_STYLE, images)
    assert "the demo's style" in load_styles(home)[0].problem


def test_servers_do_not_start_with_a_second_style_of_a_name_and_a_broken_file_stops_none(home, images, tmp_path):
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.write_text("name: mine\n")
    own = make_style(home, "mine", images)
    said = refused(home, "up", "--config", str(elsewhere))
    assert str(own) in said and str(elsewhere) in said and "two styles of the name mine" in said
    style_file(home, DEMO_STYLE).write_text(f"name: {DEMO_STYLE}\n")  # broken: a name that no file may have
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        assert f"Port {port}" in refused(home, "up", "--prefect-port", str(port))


def test_a_name_and_a_file_and_all_are_not_given_together(home, images):
    make_style(home, "comics", images)
    for arguments in (
        ("comics", "--all"),
        ("comics", "--config", "x.yaml"),
        ("--all", "--show-config"),
        ("comics", "--affected-by", "f00"),
        ("--affected-by", "f00", "--set", "training.steps=3"),
    ):
        assert sdlora(home, "run", *arguments).exit_code == 2


def test_all_styles_without_news_start_nothing_and_a_broken_one_stops_no_other(home, images):
    for name in ("a", "b", "d"):
        make_style(home, name, images)
        finish(home, name)
    style_file(home, "c").write_text("name: c\ntrainin: {}\n")
    code = f"""
import atexit, sys
from deployments.cli import main
atexit.register(lambda: print(sorted({{"torch", "prefect", "mlflow"}} & sys.modules.keys())))
sys.argv = ["sdlora", "--home", {str(home)!r}, "run", "--all"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["a", "b", "c", "d"], done.stdout + done.stderr
    assert done.stdout.count("nothing new") == 3
    assert "Did you mean 'training'?" in done.stdout
    assert (done.returncode, lines[-1]) == (1, "[]")


def test_a_style_that_learnt_from_an_image_and_has_no_file_any_more_is_named(home, images):
    make_style(home, "a", images)
    finish(home, "a")
    with ImageStore.open(home) as store:
        dataset, config = store.dataset("a"), DataConfig(min_train_images=1, min_held_out_images=1)
        clean(dataset, config)
        snapshot = make_snapshot(dataset, config)
        image = next(row.sha256 for row in dataset.images() if row.split == "train")
        assert f"No version learnt from {image[:10]}" in sdlora(home, "run", "--affected-by", image[:8]).output
        with store.write() as session:
            for name in ("a", "moved"):
                record_version(session, name, 1, "f" * 64, snapshot.digest)
    finish(home, "a")
    done = sdlora(home, "run", "--affected-by", image[:8], "--json")
    rows = {row["style"]: row for row in json.loads(done.stdout)["styles"]}
    assert done.exit_code == 1 and rows.keys() == {"a", "moved"}
    assert rows["a"]["release"]["is_new"] is False and rows["a"]["problem"] is None
    assert "moved.yaml" in rows["moved"]["problem"] and "--config" in rows["moved"]["problem"]
    assert "found none" in refused(home, "run", "--affected-by", "0" * 64)


def test_news_of_one_style_are_none_of_another(home, images, tmp_path):
    for name in ("a", "b"):
        make_style(home, name, images)
        finish(home, name)
    assert is_unchanged(home, "a")  # although b wrote the same database later
    with ImageStore.open(home) as store:
        store.dataset("a").add_image(next(draw_images(tmp_path / "more", 1, seed=5).glob("*.png")).read_bytes())
    assert (is_unchanged(home, "a"), is_unchanged(home, "b")) == (False, True)


@pytest.mark.parametrize("change", ["caption", "decision", "stars", "takedown", "removal"])
def test_what_people_decide_is_news_for_the_styles_that_have_the_image(home, images, tmp_path, change):
    make_style(home, "a", images)
    make_style(home, "b", draw_images(tmp_path / "others", 3, seed=7))
    for name in ("a", "b"):
        finish(home, name)
    with ImageStore.open(home) as store:
        dataset = store.dataset("a")
        image = dataset.images()[0].sha256
        if change == "caption":
            dataset.set_captions(image, ["another"])
        elif change == "decision":
            dataset.decide(image, "rejected", "a logo", "ana")
        elif change == "stars":
            store.rate(image, 5, "ana")
        elif change == "takedown":
            store.purge(image, "a takedown", "ana")
        else:
            dataset.remove(Selection(ids=(image,)), "ana")
    assert (is_unchanged(home, "a"), is_unchanged(home, "b")) == (False, True)


def test_an_image_that_arrives_during_a_run_is_news_for_the_next(home, images, tmp_path):
    from deployments.styles.watermark import watermark

    config = load_config(make_style(home, "a", images))
    finish(home, "a")
    release = unchanged_release(config, home)
    before = watermark(config, home)
    draw_images(images, 1, seed=9)
    remember(config, home, release, before)
    assert unchanged_release(config, home) is None


def test_an_image_that_another_process_collects_during_a_run_is_news_for_the_next(home, images, tmp_path):
    make_style(home, "a", images)
    finish(home, "a")
    config = load_config(style_file(home, "a"))
    release = unchanged_release(config, home)
    with ImageStore.open(home) as store:  # after the snapshot, before the run has ended
        store.dataset("a").add_image(next(draw_images(tmp_path / "more", 1, seed=5).glob("*.png")).read_bytes())
    remember(config, home, release)
    assert unchanged_release(config, home) is None


def test_rows_are_compared_once_after_a_change_of_other_datasets(home, images, monkeypatch):
    make_style(home, "a", images)
    finish(home, "a")
    with ImageStore.open(home) as store:
        store.dataset("b")
    assert is_unchanged(home, "a")
    monkeypatch.setattr(deployments.styles.watermark, "_rows", lambda config, home: ["not asked"])
    assert is_unchanged(home, "a")


def test_a_database_on_a_server_is_asked_for_its_rows(home, images, tmp_path, monkeypatch):
    monkeypatch.setenv("SDLORA_DATABASE_URL", f"sqlite:///{tmp_path / 'server.db'}")
    for name in ("a", "b"):
        make_style(home, name, images)
        finish(home, name)
    assert is_unchanged(home, "a")
    with ImageStore.open(home) as store:
        dataset = store.dataset("a")
        dataset.set_captions(dataset.images()[0].sha256, ["another"])
    assert (is_unchanged(home, "a"), is_unchanged(home, "b")) == (False, True)
    monkeypatch.setenv("SDLORA_DATABASE_URL", f"sqlite:///{tmp_path / 'other.db'}")
    assert not is_unchanged(home, "b")


def test_a_link_to_nothing_in_a_source_stops_no_run(home, images):
    (images / "gone.png").symlink_to(images / "never-there.png")
    make_style(home, "a", images)
    finish(home, "a")
    assert is_unchanged(home, "a")


def test_a_source_elsewhere_is_always_asked(home, images):
    make_style(home, "a", images)
    finish(home, "a")
    settings = yaml.safe_load(style_file(home, "a").read_text())
    settings["data"]["sources"].append("s3://bucket/art")
    style_file(home, "a").write_text(yaml.safe_dump(settings))
    config = load_config(style_file(home, "a"))
    assert unchanged_release(config, home) is None
    run = RunRef(digest="d" * 64, folder=home / "runs" / "a" / "d")
    remember(config, home, Release(name="a", version=1, new=True, promoted=True, reasons=(), run=run))
    assert unchanged_release(config, home) is None


def test_doctor_names_a_broken_style(home, images):
    make_style(home, "a", images)
    assert "styles a\n" in sdlora(home, "doctor").output
    style_file(home, "c").write_text("name: c\ntrainin: {}\n")
    done = sdlora(home, "doctor")
    assert done.exit_code == 1 and "Did you mean 'training'?" in done.output


def test_whatever_is_wrong_with_a_file_it_is_named_and_the_other_styles_go_on(home, images):
    for name in ("good", "better"):
        make_style(home, name, images)
        finish(home, name)
    folder = home / "styles"
    (folder / "a-folder.yaml").mkdir()
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00name")
    (folder / "cyclic.yaml").symlink_to("cyclic.yaml")
    (folder / "deep.yaml").write_text("[" * 5000)
    (folder / "empty.yaml").write_text("")
    (folder / "gone.yaml").symlink_to(home / "never-there.yaml")
    (folder / "list.yaml").write_text("- name: list\n")
    (folder / "no tabs.yaml").write_text("name:\tx\n\t- y")
    (folder / "wrong.yaml").write_text("name: wrong\ndata: {min_side_px: many}\n")
    broken = sorted(file.stem for file in folder.iterdir() if file.stem not in ("good", "better"))
    assert len(broken) == 9
    rows = {row["name"]: row for row in json.loads(sdlora(home, "styles", "--json").stdout)["styles"]}
    assert [name for name, row in sorted(rows.items()) if row["problem"]] == broken
    assert rows["good"]["images"] == 4
    done = sdlora(home, "run", "--all", "--json")
    runs = {row["style"]: row for row in json.loads(done.stdout)["styles"]}
    assert done.exit_code == 1
    assert [name for name, row in sorted(runs.items()) if row["problem"]] == broken
    assert runs["good"]["release"]["is_new"] is runs["better"]["release"]["is_new"] is False
    done = sdlora(home, "doctor", "--json")
    finding = next(row for row in json.loads(done.stdout)["findings"] if row["subject"] == "styles")
    assert finding["level"] == "problem"
    assert all(f"{name}.yaml" in finding["text"] for name in broken), finding["text"]


def test_all_styles_are_listed_with_what_is_new_and_broken_files_stop_no_other(home, images):
    assert "sdlora new" in sdlora(home, "styles").output
    for name in ("a", "b", "empty"):
        make_style(home, name, images)
    make_style(home, "also-a", images, data={"dataset": "a"})
    style_file(home, "c").write_text("name: c\ntrainin: {}\n")
    with ImageStore.open(home) as store:
        pictures = [image.read_bytes() for image in sorted(images.glob("*.png"))]
        a, b = store.dataset("a"), store.dataset("b")
        ids = [a.add_image(picture) for picture in pictures[:3]]
        b.add_image(pictures[0])
        with store.write() as session:  # a snapshot of the first three
            now = utc_now()
            session.add(SnapshotTable(dataset_id=a.id, digest="d" * 64, made_at=now, train_count=3, held_out_count=0))
            record_decision(session, "a", VERSION, DECISION, None)
        a.add_image(pictures[3])
        a.remove(Selection(ids=(ids[0],)), "ana")
    rows = {row["name"]: row for row in json.loads(sdlora(home, "styles", "--json").stdout)["styles"]}
    assert {name: (row["images"], row["new_images"]) for name, row in rows.items()} == {
        "a": (3, 1),
        "also-a": (3, 1),
        "b": (1, 1),
        "c": (None, None),
        "empty": (0, 0),
    }
    assert (rows["a"]["champion"], rows["a"]["score"], rows["a"]["last_decision"]) == (3, 0.25, "first champion")
    assert rows["also-a"]["champion"] is None
    assert "Did you mean 'training'?" in rows["c"]["problem"]
    lines = sdlora(home, "styles").output.splitlines()
    assert lines[1].split()[:6] == ["a", "3", "1", "version", "3", "KID"]
    assert len(lines) == 7 and "trainin" in lines[6]


def test_the_outcome_of_the_last_run_is_listed_with_the_reason_of_a_failure(home, images):
    for name in ("a", "b", "c", "d"):
        make_style(home, name, images)
    with ImageStore.open(home) as store, store.write() as session:
        record_decision(session, "a", VERSION, DECISION, None)
        for name, states in (("a", ("failed", "done")), ("b", ("done", "failed")), ("c", ("cancelled", "running"))):
            for state in states:
                row = new_row(Request(name), ProcessIdentity.of_this_process(), token="t" * 32)
                row.state, row.reason, row.ended_at = state, f"reason of {state}", utc_now()
                session.add(row)
        record_skipped(session, Request("d"), "nothing new")
        session.flush()
    rows = {row["name"]: row for row in json.loads(sdlora(home, "styles", "--json").stdout)["styles"]}
    assert {name: row["last_run"] for name, row in rows.items()} == {
        "a": "done",
        "b": "failed",
        "c": "cancelled",
        "d": "skipped",
    }
    assert rows["d"]["last_run_reason"] == "nothing new" and rows["d"]["last_run_ended_at"]
    listed = sdlora(home, "styles").output
    assert [word in listed for word in ("first champion", "failed", "cancelled", "skipped")] == [True] * 4
    assert "b: last run failed: reason of failed" in listed
    assert "a: last run" not in listed and "reason of cancelled" not in listed


def test_a_list_of_styles_loads_no_heavy_library(home, images):
    make_style(home, "a", images)
    finish(home, "a")
    code = f"""
import atexit, sys
from deployments.cli import main
atexit.register(lambda: print(sorted({{"torch", "prefect", "mlflow", "diffusers", "PIL"}} & sys.modules.keys())))
sys.argv = ["sdlora", "--home", {str(home)!r}, "styles"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
