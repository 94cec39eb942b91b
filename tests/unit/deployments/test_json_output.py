"""`--json`: one object per command, whose keys docs/command-line.md lists."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from deployments.cli.app import app
from deployments.cli.compare import comparison_object
from deployments.cli.json_output import print_json
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import make_snapshot
from sdlora.records.champions import ScoredVersion
from sdlora.records.decision import Decision
from sdlora.records.metrics import Estimate
from sdlora.store.champions import record_decision
from sdlora.store.lineage import record_version
from tests.settings import make_style
from tests.stores import opened_dataset
from tests.tiny import draw_images
from tests.unit.data.drawing import drawing, encoded
from tests.unit.release.test_comparison_page import COMPARISON

PROJECT = Path(__file__).parents[3]
GUIDE = (PROJECT / "docs" / "command-line.md").read_text()
CONFIG = DataConfig(min_train_images=1, min_held_out_images=1)
MAPS = {"rejected_by", "settings", "origin", "scores", "metrics", "differences", "against_first", "licences"}
"""Keys whose objects have names of checks, settings, labels, metrics or licences as keys."""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Images with everything that is listed: a rejection, a decision, stars, two snapshots, versions, a drawing."""
    folder = tmp_path_factory.mktemp("json")
    home = folder / "home"
    with opened_dataset(home) as dataset:
        pictures = draw_images(folder / "pictures", 12)
        Image.new("L", (64, 64), 200).save(pictures / "0-0000-masklabel.png")
        collect(dataset, str(pictures), CONFIG)
        dataset.add_image(encoded(drawing(3, side_px=20)), ["a small\x1b[31m one\u202e"])
        copied = encoded(drawing(5, side_px=64))
        dataset.add_image(copied, ["a car"])
        dataset.add_image(encoded(drawing(5, side_px=64).convert("RGBA")), ["the same car"])
        clean(dataset, CONFIG)
        first = make_snapshot(dataset, CONFIG)
        trained = next(row.sha256 for row in first.train)
        dataset.store.rate(trained, 5, "ana", "clear")
        dataset.set_captions(next(row.sha256 for row in first.train if row.sha256 != trained), ["another caption"])
        leaving, lost = [row.sha256 for row in first.train if row.sha256 != trained][1:3]
        dataset.decide(leaving, "rejected", "a logo", "ana")
        dataset.decide(lost, "accepted", "fine", "ana")
        for picture in pictures.glob("0-*[0-9].png"):
            Image.new("L", (64, 64), 100).save(picture.with_name(f"{picture.stem}-masklabel.png"))
        collect(dataset, str(pictures), CONFIG)
        collect(dataset, str(draw_images(folder / "more", 1, seed=9)), CONFIG)
        clean(dataset, CONFIG)
        second = make_snapshot(dataset, CONFIG)
        dataset.store.add_generation(
            encoded(drawing(7)), model_version="icons version 3", prompt="a car", seed=4, steps=9, guidance_scale=2.5
        )
        version = ScoredVersion(3, "f" * 64, first.digest, "6" * 64, 8, "kid", 0.2, 0.9)
        decision = Decision(
            promote=True,
            reasons=("as the gate says",),
            checks=(),
            duel_digest="d" * 64,
            candidate_digest="f" * 64,
            champion_digest=None,
        )
        with dataset.store.write() as session:
            record_version(session, "icons", 3, "f" * 64, first.digest)
            record_version(session, "icons", 4, "e" * 64, second.digest)
            record_decision(session, "icons", version, decision, None)
    make_style(home, "icons", pictures)
    return home


def sdlora(home: Path, *arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["--home", str(home), *arguments, "--json"])
    assert done.exit_code == 0, done.output
    assert done.stdout.isascii() and "\x1b" not in done.stdout
    return json.loads(done.stdout)


Shape = dict[str, Any] | list[Any] | None
"""Keys of an object, or the common shape of a list's elements, or None for everything else."""


def shape(value: Any, key: str = "") -> Shape:
    if isinstance(value, dict):
        return {} if key in MAPS else {name: shape(item, name) for name, item in value.items()}
    if isinstance(value, list) and key != "value":  # a setting may be a list or not
        return [reduce(merged, map(shape, value), None)]
    return None


def merged(first: Shape, second: Shape) -> Shape:
    """The shape that says most of both: an empty list or a null says nothing of what could be there."""
    if isinstance(first, dict) and isinstance(second, dict):
        assert first.keys() == second.keys()
        return {name: merged(first[name], second[name]) for name in first}
    if isinstance(first, list) and isinstance(second, list):
        return [merged(first[0], second[0])]
    return second if first is None else first


def written(keys: Shape) -> str:
    """A shape in the notation of the guide."""
    if isinstance(keys, dict):
        below = [name + (f": {written(inner)}" if inner is not None else "") for name, inner in keys.items()]
        return "{" + (", ".join(below) or "...") + "}"
    return "" if keys is None else f"[{written(keys[0])}]"


def documented(command: str) -> str:
    """The object that the guide gives for a command, with the names of common parts replaced by these."""
    rows = dict(re.findall(r"^\| `([^`|]+)`(?:, `[^`|]+`)* \| `([^`]+)`.* \|$", GUIDE, re.MULTILINE))
    parts = {name: row for name, row in rows.items() if name.isupper()}
    text = rows[command]
    while names := set(re.findall(r"\b[A-Z]+\b", text)):
        for name in names:
            text = re.sub(rf"\b{name}\b", parts[name], text)
    return text


def everything(home: Path) -> list[str]:
    """All images, collected or drawn."""
    with opened_dataset(home) as dataset:
        return [image.sha256 for image in (*dataset.images(), *dataset.store.generations())]


def digests(home: Path) -> list[str]:
    return [snapshot["digest"] for snapshot in sdlora(home, "snapshot", "list")["snapshots"]]


def inside(value: Any) -> list[Any]:
    """The value with everything inside it."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(item for part in below for item in inside(part))]


@pytest.mark.parametrize(
    "command",
    [
        "images list",
        "images list --drawn",
        "images show ID",
        "datasets list",
        "datasets show DATASET",
        "snapshot list",
        "snapshot show",
        "snapshot diff A B",
        "versions",
        "styles",
        "checks",
        "login",
        "run --show-config",
    ],
)
def test_every_object_has_the_keys_that_the_guide_lists(home, command):
    newest, first = digests(home)
    results = [
        sdlora(
            home,
            *({"ID": sha256, "A": first, "B": newest, "DATASET": "icons"}.get(word, word) for word in command.split()),
        )
        for sha256 in (everything(home) if "ID" in command else [""])
    ]
    assert written(reduce(merged, map(shape, results))) == documented(f"sdlora {command}")
    for item in inside(results):
        if isinstance(item, dict):
            assert all(re.fullmatch(r"[a-z][a-z0-9_.]*", name) for name in item)
            for name in item.keys() & {"made_at", "decided_at", "collected_at", "checked_at", "rated_at"}:
                assert datetime.fromisoformat(item[name]).tzinfo is not None


def test_a_new_style_is_described(home, tmp_path):
    pictures = draw_images(tmp_path / "images", 11)
    (pictures / "broken.png").write_bytes(b"this is no image")
    result = sdlora(tmp_path / "home", "new", "props", "--images", str(pictures))
    assert written(shape(result)) == documented("sdlora new NAME")
    assert result["sources"][0]["images"] == 12


def test_doctor_tells_findings_and_damage_and_its_exit_status_agrees(home, tmp_path):
    whole = sdlora(home, "doctor", "--deep")
    assert whole["is_good"] and whole["damages"] == []
    assert {finding["level"] for finding in whole["findings"]} <= {"good", "note"}
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    next(path for path in (copy / "blobs").rglob("*") if path.is_file()).write_bytes(b"damaged")
    done = CliRunner().invoke(app, ["doctor", "--deep", "--json", "--home", str(copy)])
    result = json.loads(done.stdout)
    assert (done.exit_code, result["is_good"]) == (1, False)
    assert result["damages"][0]["problem"] in ("missing", "damaged")
    assert written(shape(result)) == documented("sdlora doctor")
    assert sdlora(home, "doctor")["damages"] is None  # nothing was read


def test_collecting_reports_each_source_and_the_totals(home, tmp_path):
    folder = draw_images(tmp_path / "images", 3)
    with (folder / "metadata.jsonl").open("a") as file:
        file.write("{broken\n")
    with opened_dataset(tmp_path / "home") as dataset:  # a purged image is skipped
        taken_down = dataset.add_image(next(folder.glob("*.png")).read_bytes())
        dataset.store.purge(taken_down, "a takedown", "ana")
    result = sdlora(tmp_path / "home", "collect", str(folder), str(folder))
    assert written(shape(result)) == documented("sdlora collect SOURCE...")
    assert [source["new"] for source in result["sources"]] == [2, 0]
    assert "takedown" in result["sources"][0]["skipped"][0]["reason"]
    assert result["counts"]["total"] == 3
    assert Path(result["data_page"]).is_file()


def test_a_comparison_has_the_names_of_today(capsys):
    print_json(comparison_object(COMPARISON, Path("page.html")))
    result = json.loads(capsys.readouterr().out)
    assert written(shape(result)) == documented("sdlora compare")
    assert result["comparison"]["differences"]["full"]["denoising_psnr"]["value"] is None


def test_every_command_that_lists_or_shows_has_the_option():
    commands = get_command(app).commands
    without = {"up", "pretrain", "logs", "notify"}  # they show nothing that a program could use
    assert {name for name, command in commands.items() if not options(command) >= {"--json"}} == without | {
        "datasets",
        "notify",
        "snapshot",
    }
    groups = {
        (name, inner) for name in ("images", "datasets", "notify", "snapshot") for inner in commands[name].commands
    }
    have_json = {(name, inner) for name, inner in groups if "--json" in options(commands[name].commands[inner])}
    both = {(group, name) for group in ("images", "datasets") for name in ("list", "show")}
    assert have_json == both | {("notify", "list")} | {("snapshot", name) for name in ("list", "show", "diff")}


def options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


def test_an_error_leaves_standard_output_empty(tmp_path):
    done = CliRunner().invoke(app, ["snapshot", "list", "--json", "--home", str(tmp_path / "none")])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert json.loads(CliRunner().invoke(app, ["images", "--json", "--home", str(tmp_path)]).stdout)["images"] == []


def test_numbers_that_json_lacks_are_null_and_dates_are_iso_8601(capsys):
    print_json({"score": Estimate(value=1.0, low=math.nan, high=math.inf)})
    assert json.loads(capsys.readouterr().out)["score"] == {"value": 1.0, "low": None, "high": None}
    print_json({"a": math.nan, "b": -math.inf, "at": datetime(2026, 1, 2, tzinfo=UTC), "half": "\ud800\x7f"})
    text = capsys.readouterr().out
    assert json.loads(text) == {"a": None, "b": None, "at": "2026-01-02T00:00:00Z", "half": "\ud800\x7f"}
    assert text.isascii() and "\x7f" not in text


# Five uses in scripts, each as a person types it into a shell.

READ = "import json, sys; result = json.load(sys.stdin); "
SCRIPTS = {
    "ids of all rejected images, with the checks": (
        "images list --rejected",
        '[print(image["sha256"][:10], image["rejected_by"]) for image in result["images"]]',
        r"([0-9a-f]{10} (person|too_small|exact_duplicate|near_duplicate)\n){2,}",
    ),
    "number of the champion": (
        "versions icons",
        'print(next(v["number"] for v in result["versions"] if v["is_champion"]))',
        r"3\n",
    ),
    "images that came since the first snapshot": (
        "snapshot show",
        'print(len(result["changes"]["added"]), result["snapshot"]["train_count"])',
        r"\d+ \d+\n",
    ),
    "a check's setting": (
        "checks",
        'print(next(c["settings"]["min_side_px"] for c in result["checks"] if c["name"] == "too_small"))',
        r"\d+\n",
    ),
    "the settings of a run as NAME=VALUE": (
        "run --show-config --set training.steps=7",
        '[print(s["name"], s["value"], sep="=") for s in result["settings"] if s["origin"] == "flag"]',
        r"training\.steps=7\n",
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_read_the_objects(home, name):
    command, program, expected = SCRIPTS[name]
    typed = f'"$PYTHON" -m deployments.cli --home "$STATE" {command} --json | "$PYTHON" -c "$PROGRAM"'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", typed],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env={**os.environ, "PYTHON": sys.executable, "STATE": str(home), "PROGRAM": READ + program},
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(expected, done.stdout), done.stdout
    assert done.stderr == ""
