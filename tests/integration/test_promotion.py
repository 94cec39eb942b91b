"""People decide on a style of twenty images: promote, reject, roll back, and decisions that are void."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
from deployments.cli.run_output import release_object
from flows.promote import promote as promote_flow
from flows.reject import reject as reject_flow
from flows.retrain import retrain
from flows.rollback import rollback as rollback_flow
from sdlora.config import PipelineConfig
from sdlora.core.errors import ConfigError, EvaluationError, TakedownError
from sdlora.core.tensor_header import read_header
from sdlora.data.snapshot import load_snapshot
from sdlora.records.champions import ChampionHistory
from sdlora.records.duel import load_duel
from sdlora.release.config import ExportConfig
from sdlora.store.champions import champion_history
from sdlora.store.image_store import ImageStore
from tasks.decisions.aliases import notice_moved_aliases
from tasks.decisions.promotion import promote_version, reject_version, roll_back
from tasks.results import Release
from tasks.tracking import Registry
from tests.settings import run_flow
from tests.stack import PROJECT, clean_environment
from tests.tiny import draw_images

STYLE = "few"


@dataclass
class Small:
    """A style whose images arrive in small groups, and its state folder."""

    config: PipelineConfig
    home: Path
    images: Path
    loras: Path

    def run(self, more: int = 0, seed: int = 0, **parameters: object) -> Release:
        if more:
            draw_images(self.images / str(seed), more, seed=seed)
        return run_flow(retrain, self.config, self.home, **parameters)

    @property
    def history(self) -> ChampionHistory:
        with ImageStore.open(self.home) as store, store.read() as session:
            return champion_history(session, STYLE)

    def alias(self, name: str) -> int | None:
        version = Registry(self.home).get(STYLE, name)
        return version.number if version else None

    @property
    def exported(self) -> str:
        return read_header(self.loras / f"{STYLE}.safetensors").metadata["sdlora.version"]


@pytest.fixture(scope="module")
def small(config: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("few")
    images, loras = folder / "images", folder / "loras"
    loras.mkdir()
    data = config.data.model_copy(update={"sources": (str(images),), "held_out_fraction": 0.25})
    export = ExportConfig(on_promote=str(loras))
    # Five of twenty images are held out, and never more are scored: too few for an interval, in every round.
    evaluation = config.evaluation.model_copy(update={"max_prompts": 5})
    gate = config.gate.model_copy(update={"max_time_factor": None})  # times of a busy machine decide nothing here
    changes = {"name": STYLE, "data": data, "export": export, "evaluation": evaluation, "gate": gate}
    return Small(config.model_copy(update=changes), folder / "home", images, loras)


def command(small: Small, *words: str) -> subprocess.CompletedProcess[str]:
    full = [sys.executable, "-m", "deployments.cli", *words, "--home", str(small.home)]
    return subprocess.run(full, cwd=PROJECT, env=clean_environment(), capture_output=True, text=True)


@pytest.fixture(scope="module")
def first(small: Small) -> Release:
    return small.run(more=20)


def test_the_first_version_of_twenty_images_waits_and_the_run_says_what_to_type(small: Small, first: Release) -> None:
    assert (first.new, first.promoted, first.waits, first.answer) == (True, False, True, "cannot tell")
    assert "are too few for an interval of KID" in first.reasons[0]
    assert first.next_steps[0] == "To make version 1 the champion, type: sdlora promote few --version 1"
    assert release_object(first, 1.0)["is_waiting"] is True
    assert (small.alias("candidate"), small.alias("champion")) == (1, None)
    assert Registry(small.home).get(STYLE, 1).tags["decision"] == "waiting"
    assert "sdlora promote few --version 1" in Registry(small.home).model(STYLE).description
    report = first.report.read_text()
    assert "The gate cannot tell, a person decides" in report
    assert "type: sdlora promote few --version 1" in report
    again = small.run()
    assert (again.new, again.waits, again.next_steps) == (False, True, first.next_steps)
    assert [entry.kind for entry in small.history.entries] == ["waiting"]
    with pytest.raises(ConfigError, match="'few' has no earlier champion"):
        roll_back(STYLE, None, "ana", "", small.home)


def test_promote_makes_it_the_champion_and_exports_it(small: Small, first: Release) -> None:
    done = command(small, "promote", STYLE, "--why", "cleaner lines", "--who", "ana", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["decision"], answer["champion"], answer["champion_before"]) == ("first champion", 1, None)
    assert (answer["decided_by"], answer["why"]) == ("ana", "cleaner lines")
    assert answer["exported_to"] == str(small.loras / "few.safetensors")
    assert (small.alias("champion"), small.exported) == (1, "1")
    page = Registry(small.home).client.get_model_version(STYLE, "1").description
    assert re.match(r"\*\*20\d\d-\d\d-\d\d \d\d:\d\d UTC, first champion by ana:\*\* cleaner lines\n\n\*\*\w", page)
    assert page.count("cleaner lines") == 1
    tags = Registry(small.home).get(STYLE, 1).tags
    assert tags["decision"] == "waiting"  # the publication's
    assert tags["decision 2"].endswith("first champion by ana: cleaner lines")
    again = small.run()
    assert (again.waits, again.standing) == (False, "first champion by ana: cleaner lines")
    with pytest.raises(ConfigError, match="No version of 'few' waits for a decision"):
        promote_version(STYLE, None, "ana", "", small.home)
    history = CliRunner().invoke(app, ["versions", STYLE, "--history", "--home", str(small.home)])
    newest, oldest = (" ".join(line.split()) for line in history.stdout.splitlines()[1:])
    assert "few 1 first champion none → 1 ana cleaner lines" in newest
    assert "few 1 waited (cannot tell) none gate 5 held-out images are too few" in oldest


def test_after_a_rollback_the_next_version_is_judged_against_the_champion_of_then(small: Small) -> None:
    second = small.run(more=6, seed=11)
    assert second.waits
    (one,) = [version for version in Registry(small.home).versions(STYLE) if version.number == 1]
    assert load_duel(second.evaluation).champion_digest == one.tags["adapter_digest"]
    promoted = promote_flow(STYLE, who="ana", why="more colours", home=small.home)
    assert (promoted.kind, promoted.champion, promoted.champion_before, small.exported) == ("promoted", 2, 1, "2")
    back = rollback_flow(STYLE, why="it forgot the lines", home=small.home)
    assert (back.kind, back.champion, back.who, small.exported) == ("rolled back", 1, "a person in Prefect", "1")
    assert small.alias("champion") == 1
    third = small.run(more=6, seed=12)
    assert (third.version, third.waits) == (3, True)
    assert load_duel(third.evaluation).champion_digest == one.tags["adapter_digest"]
    assert [(entry.kind, entry.to_version) for entry in small.history.entries] == [
        ("waiting", None),
        ("first champion", 1),
        ("waiting", 1),
        ("promoted", 2),
        ("rolled back", 1),
        ("waiting", 1),
    ]


def test_a_rejected_candidate_stays_rejected_until_something_is_new(small: Small) -> None:
    with pytest.raises(ConfigError, match=r"Version 2 of 'few' does not wait for a decision\. Version 3 does"):
        reject_version(STYLE, 2, "ana", "", small.home)
    rejected = reject_flow(STYLE, 3, "bo", "too smooth", small.home)
    assert (rejected.kind, rejected.champion) == ("rejected", 1)
    again = small.run(force=True)  # the duel is the same one, so the answer stands
    assert (again.waits, again.standing) == (False, "rejected by bo: too smooth")
    with pytest.raises(ConfigError, match="No version of 'few' waits"):
        promote_version(STYLE, None, "ana", "", small.home)


def test_an_alias_that_is_moved_by_hand_voids_the_decision_that_waits(small: Small) -> None:
    fourth = small.run(more=6, seed=13)
    assert (fourth.version, fourth.waits) == (4, True)
    question = small.history.question
    Registry(small.home).client.set_registered_model_alias(STYLE, "champion", "2")
    with pytest.raises(
        EvaluationError, match=r"version 4 of 'few' is void: its duel was against .*version 1.*version 2"
    ):
        promote_version(STYLE, 4, "ana", "", small.home)
    moved = small.history.entries[-1]
    assert (moved.kind, moved.who, moved.to_version) == ("moved by hand", "a person in MLflow", 2)
    with pytest.raises(EvaluationError, match="is void"):
        promote_version(STYLE, None, "ana", "", small.home, question)
    assert small.run().standing.startswith("its duel was against")
    assert small.history.entries[-1] == moved
    assert roll_back(STYLE, 4, "ana", "it is good all the same", small.home).champion == 4


def test_an_alias_that_is_moved_by_hand_is_noticed_and_exported_without_a_run(small: Small) -> None:
    assert notice_moved_aliases(small.home) == []
    before, registry = small.history, Registry(small.home)
    registry.client.set_registered_model_alias(STYLE, "champion", "3")
    assert notice_moved_aliases(small.home) == ["few: the champion was changed in MLflow, and the history has it now"]
    moved = small.history.entries[-1]
    assert (moved.kind, moved.from_version, moved.to_version) == ("moved by hand", 4, 3)
    assert (small.history.length, small.exported) == (before.length + 1, "3")
    assert "moved by hand by a person in MLflow" in registry.client.get_model_version(STYLE, "3").description
    assert notice_moved_aliases(small.home) == []
    registry.client.delete_registered_model_alias(STYLE, "champion")
    assert len(notice_moved_aliases(small.home)) == 1
    assert small.history.champion is None
    roll_back(STYLE, 4, "ana", "back", small.home)


def test_a_version_that_learnt_from_a_purged_image_does_not_return(small: Small) -> None:
    with ImageStore.open(small.home) as store:
        digest = Registry(small.home).get(STYLE, 1).tags["snapshot_digest"]
        store.purge(load_snapshot(store, digest).train[0].sha256, "a takedown", "ana")
    with pytest.raises(TakedownError, match=r"few version 1 learnt from image .* purged by ana"):
        roll_back(STYLE, 1, "ana", "", small.home)
    assert small.history.champion.number == 4
