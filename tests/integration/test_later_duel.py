"""A version has one publication: what comes later is added to its evidence, and nothing is trained twice."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.retrain import retrain
from sdlora.config import PipelineConfig
from sdlora.data.split import Member, assign_sides
from sdlora.records.champions import ChampionHistory
from sdlora.records.duel import load_duel
from sdlora.store.champions import champion_history
from sdlora.store.image_store import ImageStore
from tasks.results import Release
from tasks.tracking import Registry
from tests.settings import run_flow
from tests.tiny import draw_images


@dataclass(frozen=True)
class Evidence:
    """Everything that a version was published with, and its history."""

    tags: Mapping[str, str]
    description: str
    files: Mapping[str, str]
    history: ChampionHistory

    @classmethod
    def of(cls, home: Path) -> Evidence:
        version = Registry(home).client.get_model_version("shapes", "1")
        folders = (home / "runs" / "shapes", home / "mlflow" / "artifacts")
        files = {
            str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
            for folder in folders
            for path in folder.rglob("*")
            if path.is_file()
        }
        with ImageStore.open(home) as store, store.read() as session:
            history = champion_history(session, "shapes")
        tags = dict(version.tags)
        notes = {f"note {key}": value for key, value in json.loads(tags.pop("sdlora")).items()}
        return cls({**tags, **notes}, version.description or "", files, history)

    def is_kept_in(self, later: Evidence) -> bool:
        """True if all of it is there unchanged; more may have been added."""
        return (
            self.tags.items() <= later.tags.items()
            and self.description in later.description
            and self.files.items() <= later.files.items()
            and later.history.entries[: self.history.length] == self.history.entries
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder of its own, because the images of these rounds are not for other styles."""
    return tmp_path_factory.mktemp("later") / "home"


@pytest.fixture(scope="module")
def config(config: PipelineConfig) -> PipelineConfig:
    """The style, measured only at its last step, which is then the best one."""
    return with_training(config, validation_every_steps=config.training.steps)


@pytest.fixture(scope="module")
def published(config: PipelineConfig, home: Path) -> tuple[Release, Evidence]:
    """The first round, and its version as champion: a person chose it in MLflow."""
    release = run_flow(retrain, config, home)
    Registry(home).client.set_registered_model_alias("shapes", "champion", "1")
    return release, Evidence.of(home)


@pytest.fixture(scope="module")
def more_held_out(config: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    """The style with a second source, whose images all fall on the held-out side."""
    folder = draw_images(tmp_path_factory.mktemp("more") / "images", 16, seed=7)
    for path in folder.glob("*.png"):
        new = Member(1, hashlib.sha256(path.read_bytes()).hexdigest(), None)
        if assign_sides([new], [], config.data).splits[1] == "train":
            path.unlink()
    assert len(list(folder.glob("*.png"))) > 2
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    kept = [json.dumps(row) for row in rows if (folder / row["file_name"]).exists()]
    (folder / "metadata.jsonl").write_text("\n".join(kept) + "\n")
    sources = (*config.data.sources, str(folder))
    return config.model_copy(update={"data": config.data.model_copy(update={"sources": sources})})


def with_training(config: PipelineConfig, **settings: object) -> PipelineConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=settings)})


def trained_at(release: Release) -> int:
    return (release.run.folder / "adapter" / "pytorch_lora_weights.safetensors").stat().st_mtime_ns


def test_images_that_are_all_held_out_train_nothing_and_change_nothing(published, more_held_out, home):
    first, before = published
    written = trained_at(first)
    again = run_flow(retrain, more_held_out, home)
    assert (again.version, again.new, again.other_held_out) == (1, False, True)
    assert again.run == first.run
    assert trained_at(first) == written
    with ImageStore.open(home) as store, store.read() as session:
        assert champion_history(session, "shapes") == before.history  # the change by hand is seen by the next duel
    after = Evidence.of(home)
    assert (after.tags, after.description, after.files) == (before.tags, before.description, before.files)


def test_judged_again_the_champion_keeps_its_publication_and_gains_a_duel_on_more_images(
    published, more_held_out, home
):
    first, before = published
    written = trained_at(first)
    judged = run_flow(retrain, more_held_out, home, force=True)
    assert judged.version == 1
    assert trained_at(first) == written
    after = Evidence.of(home)
    assert before.is_kept_in(after)
    assert after.tags["decision"] == "not promoted"  # of the publication, before a person chose it
    published_duel, later_duel = load_duel(first.run.evaluation), load_duel(judged.evaluation)
    assert later_duel.candidate_digest == published_duel.candidate_digest
    assert len(later_duel.samples) >= len(published_duel.samples)
    assert later_duel.snapshot_digest != published_duel.snapshot_digest
    refused, chosen, entry = after.history.entries
    assert (refused.kind, chosen.kind, entry.kind) == ("refused", "moved by hand", "not confirmed")
    assert entry.duel_digest == later_duel.digest()
    assert (entry.from_version, entry.to_version) == (1, 1)
    assert Registry(home).get("shapes", "champion").number == 1
    assert after.tags["decision 3"].startswith(f"{entry.decided_at:%Y-%m-%d}, not confirmed: KID ")
    chosen_by, added = after.description.split(before.description)
    assert "moved by hand by a person in MLflow:** The alias was moved in MLflow." in chosen_by
    assert "**Judged again on" in added
    assert "Not confirmed, but still champion" in judged.report.read_text()
    assert judged.report != first.report
    run_folder = str(judged.report.parent.relative_to(home))
    run_id = (home / run_folder / "mlflow_run.txt").read_text()
    client = Registry(home).client
    assert {"report.html", "duel.json"} <= {item.path for item in client.list_artifacts(run_id)}
    assert client.get_run(run_id).data.tags["duel_digest"] == later_duel.digest()


def test_the_same_duel_again_adds_nothing(published, more_held_out, home):
    before = Evidence.of(home)
    again = run_flow(retrain, more_held_out, home, force=True)
    after = Evidence.of(home)
    assert again.version == 1
    assert after.tags == before.tags
    assert after.description == before.description
    assert after.history == before.history
    assert after.files == before.files


def test_equal_adapters_of_other_settings_are_one_version_whose_notes_stay(published, config, home):
    before = Evidence.of(home)
    other = with_training(config, keep="last")
    again = run_flow(retrain, other, home)
    assert (again.version, again.run) == (1, published[0].run)
    after = Evidence.of(home)
    added = after.tags.items() - before.tags.items()
    assert [(key, len(value)) for key, value in added] == [("note equal_runs", 64)]
    assert before.tags.items() <= after.tags.items()
    assert run_flow(retrain, other, home).new is False
    assert after.history.champion.number == 1


def test_a_deleted_run_folder_gets_its_release_back(published, config, home):
    release = published[0].run.release
    files = {path.name: path.read_bytes() for path in release.iterdir()}
    shutil.rmtree(release.parent)
    assert run_flow(retrain, config, home).new is False
    assert {path.name: path.read_bytes() for path in release.iterdir()} == files


def test_a_killed_publishing_leaves_no_model_behind(published, config, home, monkeypatch):
    style = config.model_copy(update={"name": "killed"})
    register = MlflowClient.create_model_version

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def sizes() -> list[int]:
        models = home / "mlflow" / "artifacts" / "killed" / "models"
        return sorted(path.stat().st_size for path in models.rglob("*") if path.is_file())

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.create_model_version", killed)
        for attempt in (1, 2):
            with pytest.raises(KeyboardInterrupt):
                run_flow(retrain, style, home)
            left = sizes()
            assert len(left) > 5 * attempt
    assert MlflowClient.create_model_version is register
    release = run_flow(retrain, style, home)
    registry = Registry(home)
    (version,) = registry.versions("killed")
    assert (release.version, version.published) == (1, True)
    stored = sizes()
    assert len(stored) * 3 > len(left) > len(stored)
    experiment = registry.client.get_experiment_by_name("killed").experiment_id
    (model,) = registry.client.search_logged_models([experiment])
    assert version.source == f"models:/{model.model_id}"
    weights = release.run.folder / "adapter" / "pytorch_lora_weights.safetensors"
    shutil.rmtree(weights.parent)
    assert registry.fetch(version, home).digest == version.tags["adapter_digest"]
