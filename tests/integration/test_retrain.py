"""The loop over time in one state folder. A test names the round that it needs, and can run alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.settings import get_current_settings

import flows.retrain as retrain_flow
from flows.retrain import retrain
from sdlora.config import PipelineConfig, resolve
from sdlora.core.errors import ConfigError
from sdlora.core.schedule import ScheduleConfig
from sdlora.models.files.sources import load_base_model
from sdlora.records.duel import load_duel
from sdlora.store.champions import champion_history
from sdlora.store.image_store import ImageStore
from sdlora.store.tickets import Request, cancelled_ticket, last_runs
from sdlora.store.training_queue import AlreadyQueuedError, TrainingQueue
from sdlora.training import identity
from sdlora.training.identity import TRAINER_VERSION
from tasks.form import STYLE
from tasks.results import Release
from tasks.tracking import Registry, tracking_uri
from tasks.waiting import outcomes, unattended
from tests.prefect_records import artifacts_of, newest_run
from tests.settings import run_flow
from tests.tiny import tiny_base_model


@pytest.fixture(scope="module")
def first(config: PipelineConfig, home: Path) -> Release:
    return run_flow(retrain, config, home)


@pytest.fixture(scope="module")
def more_images(config: PipelineConfig, later_images: Path) -> PipelineConfig:
    """The style with a second source."""
    return with_sources(config, Path(config.data.sources[0]), later_images)


@pytest.fixture(scope="module")
def second(first: Release, more_images: PipelineConfig, home: Path) -> Release:
    """The round after more images came, against version 1, which a person made the champion."""
    Registry(home).client.set_registered_model_alias("shapes", "champion", "1")  # by a person, in MLflow's page
    return run_flow(retrain, more_images, home)


def with_sources(config: PipelineConfig, *sources: Path) -> PipelineConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"sources": tuple(map(str, sources))})})


def test_new_images_make_a_version_with_all_its_evidence(first, config, home):
    resolved = resolve(config, load_base_model(config.base_model, home), home)
    assert (first.version, first.new) == (1, True)
    version = Registry(home).get("shapes", 1)
    assert version.aliases[0] == "candidate"
    assert version.published
    folder = first.run.folder / "adapter"
    assert version.tags["adapter_digest"] == json.loads((folder / "adapter.json").read_text())["digest"]
    assert version.tags["run_digest"] == first.run.digest
    assert version.tags["config_digest"] == resolved.digest()
    assert version.tags["decision"] == "not promoted"  # six steps on random weights beat nothing
    assert version.tags["reasons"] == "\n".join(first.reasons)
    assert first.report.is_file()
    assert first.grid.is_file()


def test_an_equal_run_that_ends_between_the_first_look_and_the_queue_is_taken_as_it_is(
    first, config, home, monkeypatch
):
    look, missed = retrain_flow.find_release, [None]

    def look_too_early(*arguments):
        return missed.pop() if missed else look(*arguments)

    monkeypatch.setattr(retrain_flow, "find_release", look_too_early)
    again = run_flow(retrain, config, home)
    assert (again.version, again.new, again.later) == (1, False, None) and not missed


def test_the_registered_files_are_the_released_ones_and_hold_no_pickle(first, home):
    version = Registry(home).get("shapes", 1)
    client = MlflowClient(tracking_uri(home), tracking_uri(home))
    model_id = version.source.removeprefix("models:/")
    address = client.get_logged_model(model_id).artifact_location
    stored = home / "mlflow" / "artifacts" / address.removeprefix("mlflow-artifacts:/")
    names = {path.name for path in (stored / "adapter_weights").iterdir()}
    assert {
        "pytorch_lora_weights.safetensors",
        "shapes.safetensors",
        "adapter.json",
        "README.md",
        "report.html",
    } <= names
    assert {"duel.json", "decision.json"} <= names
    assert not [path for path in stored.rglob("*") if path.suffix in {".pkl", ".pickle", ".pt", ".bin", ".ckpt"}]
    for name in names:
        released = first.run.release / name
        assert released.is_dir() or released.read_bytes() == (stored / "adapter_weights" / name).read_bytes()
    assert stored.is_relative_to(home)


def test_the_run_records_settings_curves_images_and_exactly_the_images_it_learnt_from(first, config, home):
    client = MlflowClient(tracking_uri(home), tracking_uri(home))
    run = client.get_run(Registry(home).get("shapes", 1).run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["training.steps"] == "6"
    assert run.data.params["lora.rank"] == "2"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "loss")] == [2, 4, 6]
    assert [point.step for point in client.get_metric_history(run.info.run_id, "validation_loss")] == [0, 3, 6]
    kid = load_duel(first.run.evaluation).scores["candidate"].metrics["kid"].value
    assert run.data.metrics["candidate/kid"] == pytest.approx(kid)
    assert not [name for name in run.data.metrics if name.endswith(("_low", "_high"))]
    assert load_duel(Path(client.download_artifacts(run.info.run_id, "duel.json")).parent) == load_duel(
        first.run.evaluation
    )
    assert {item.path for item in client.list_artifacts(run.info.run_id, "images")} == {
        "images/grid.png",
        "images/before-after.png",
        "images/summary.png",
    }
    dataset = run.inputs.dataset_inputs[0].dataset
    digest = run.data.tags["snapshot_digest"]
    assert dataset.digest == digest[:36]
    assert json.loads(dataset.source)["digest"] == digest
    manifest = Path(client.download_artifacts(run.info.run_id, "snapshot.json"))
    listed = {row["sha256"] for row in json.loads(manifest.read_text())["rows"]}
    with ImageStore.open(home) as store:
        assert listed == {record.sha256 for record in store.dataset("shapes").images("accepted")}


def test_the_data_page_is_linked_from_report_and_mlflow_and_the_store_knows_the_version(first, home):
    report, page = first.report.read_text(), first.report.with_name("data.html")
    assert '<a href="data.html">' in report
    assert "unreadable" in page.read_text()
    client = MlflowClient(tracking_uri(home), tracking_uri(home))
    version = Registry(home).get("shapes", 1)
    logged = [item.path for item in client.list_artifacts(version.run_id, "data")]
    assert logged == [f"data/data-{version.tags['snapshot_digest'][:16]}.html"]
    with ImageStore.open(home) as store:
        dataset = store.dataset("shapes")
        (trained,) = dataset.snapshot(version.tags["snapshot_digest"]).versions
        image = next(record for record in dataset.images("accepted") if record.split == "train")
        assert "shapes version 1" in [one.label for one in dataset.details(image.sha256).trained_versions]
    assert trained.adapter_digest == version.tags["adapter_digest"]


def test_the_run_page_shows_images_scores_and_the_decision_and_no_link_that_a_browser_cannot_open(first):
    by_key = ArtifactFilter(key=ArtifactFilterKey(any_=["result"]))
    with get_client(sync_client=True) as client:
        results = client.read_artifacts(artifact_filter=by_key, sort=ArtifactSort.CREATED_DESC)
    run_id = next(one.flow_run_id for one in reversed(results) if str(first.report) in one.data)
    artifacts = artifacts_of(run_id)
    assert artifacts.keys() == {"images", "progress", "result"}
    assert "unreadable" in artifacts["images"].data
    result = artifacts["result"]
    assert result.description == "Not promoted: shapes version 1"
    assert "KID" in result.data
    assert "](data:image/jpeg;base64," in result.data
    assert first.reasons[0][:40] in result.data
    assert "file://" not in result.data  # no server is named here
    assert "](http" not in result.data
    assert "`sdlora up`" in result.data
    assert artifacts["progress"].data == 100.0
    assert artifacts["progress"].description == "publish: 3 of 3"


def test_the_same_images_make_no_second_version(first, config, home):
    weights = first.run.folder / "adapter" / "pytorch_lora_weights.safetensors"
    written_at = weights.stat().st_mtime_ns
    again = run_flow(retrain, config, home)
    assert (again.version, again.new) == (1, False)
    assert again.reasons == first.reasons
    assert len(Registry(home).versions("shapes")) == 1
    assert weights.stat().st_mtime_ns == written_at
    newest = newest_run()
    assert newest.name.endswith(", no new images")
    result = artifacts_of(newest.id)["result"]
    assert result.description == "Nothing new: shapes version 1 stands"
    assert str(first.report) in result.data


def test_a_run_without_news_imports_no_model_library(first, config, home):
    code = """
import json, sys
from flows.retrain import retrain
release = retrain(**json.loads(sys.argv[1]), home=sys.argv[2])
loaded = {"torch", "diffusers", "transformers", "peft", "accelerate", "torchmetrics"} & sys.modules.keys()
print(release.version, release.new, sorted(loaded))
"""
    parameters = json.dumps(STYLE.parameters(config))
    environment = {**os.environ, **get_current_settings().to_environment_variables(exclude_unset=True)}
    done = subprocess.run(
        [sys.executable, "-c", code, parameters, str(home)], capture_output=True, text=True, env=environment
    )
    assert done.stdout.endswith("1 False []\n"), done.stdout + done.stderr


def test_forced_it_decides_again_without_training_or_registering_again(first, config, home):
    weights = first.run.folder / "adapter" / "pytorch_lora_weights.safetensors"
    written_at = weights.stat().st_mtime_ns
    forced = run_flow(retrain, config, home, force=True)
    assert (forced.version, forced.new) == (1, True)
    assert len(Registry(home).versions("shapes")) == 1
    assert weights.stat().st_mtime_ns == written_at


def test_people_see_few_tags_and_programs_find_the_rest_in_one(first, home):
    version = Registry(home).client.get_model_version("shapes", "1")
    assert version.tags.keys() == {"decision", "KID", "images", "base", "sdlora"}
    noted = json.loads(version.tags["sdlora"])
    assert version.tags["images"] == f"{noted['train_count']} trained on, {noted['held_out_count']} held out"
    assert noted["run_digest"] == first.run.digest
    assert {len(value) for key, value in noted.items() if key.endswith("_digest")} == {64}


def test_a_run_killed_before_publishing_ended_is_finished_by_the_next(first, config, home):
    registry = Registry(home)
    noted = registry.client.get_model_version("shapes", "1").tags["sdlora"]
    before = {key: value for key, value in json.loads(noted).items() if key != "published"}
    registry.client.set_model_version_tag("shapes", "1", "sdlora", json.dumps(before))  # killed before the last line
    healed = run_flow(retrain, config, home)
    assert (healed.version, healed.new) == (1, True)
    assert registry.get("shapes", 1).published
    assert len(registry.versions("shapes")) == 1


def test_more_images_fight_the_champion_and_a_worse_adapter_does_not_replace_it(first, second, home):
    registry = Registry(home)
    assert (second.version, second.new, second.promoted) == (2, True, False)
    duel = load_duel(second.run.evaluation)
    assert duel.champion_digest == registry.get("shapes", 1).tags["adapter_digest"]
    assert duel.candidate_digest == registry.get("shapes", 2).tags["adapter_digest"]
    assert set(duel.scores) == {"base", "champion", "candidate"}
    assert registry.get("shapes", "champion").number == 1
    assert registry.get("shapes", "candidate").number == 2
    assert second.reasons
    with ImageStore.open(home) as store, store.read() as session:
        entries = champion_history(session, "shapes").entries
    decided = [(entry.kind, entry.version.number, entry.to_version) for entry in entries]
    assert decided == [("refused", 1, None), ("moved by hand", 1, 1), ("refused", 2, 1)]
    page = registry.client.get_registered_model("shapes").description
    assert "| version 1 |" in page.replace("&emsp;", "")
    assert "a person in MLflow" in page


def test_the_second_batch_is_trained_once_too(second, more_images, home):
    again = run_flow(retrain, more_images, home)
    assert (again.version, again.new) == (2, False)


def test_another_base_model_cannot_challenge_this_champion(second, config, home, tmp_path):
    other = tiny_base_model(tmp_path / "other", seed=1)
    changed = config.model_copy(update={"base_model": config.base_model.model_copy(update={"source": str(other)})})
    with pytest.raises(ConfigError, match=r"version 1\) was made for the base model .* another name for this style"):
        run_flow(retrain, changed, home)
    assert len(Registry(home).versions("shapes")) == 2


def test_a_style_is_not_trained_twice_at_once(second, more_images, home):
    with ImageStore.open(home) as store:
        queue = TrainingQueue(store.database)
        ticket = queue.ask(Request("shapes"))
        with pytest.raises(AlreadyQueuedError, match=r"shapes already waits since .* sdlora cancel shapes"):
            run_flow(retrain, more_images, home, force=True)
        queue.end(ticket, "done")


def test_the_clock_leaves_a_cancelled_run_alone_until_a_person_starts_it(second, more_images, home, monkeypatch):
    with ImageStore.open(home) as store:
        queue = TrainingQueue(store.database)
        queue.end(queue.ask(Request("shapes", run_digest=second.run.digest)), "cancelled", "Cancelled by ana.")
        with monkeypatch.context() as patch:
            patch.setattr(outcomes, "asked_by", lambda: "clock")
            assert run_flow(retrain, more_images, home, force=True) is None
            assert last_run(store) == (
                "skipped",
                "a person cancelled this run, and no change of images or settings came since: Cancelled by ana.",
            )
            assert run_flow(retrain, more_images, home).version == 2
            assert last_run(store) == ("skipped", "nothing new")
        assert run_flow(retrain, more_images, home, force=True).version == 2
        assert last_run(store) == ("done", None)
        with store.read() as session:
            assert cancelled_ticket(session, "shapes", second.run.digest) is None


def test_a_newer_sdlora_alone_trains_nothing_unless_a_person_asks(second, more_images, home, monkeypatch):
    with ImageStore.open(home) as store, monkeypatch.context() as patch:
        patch.setattr(outcomes, "asked_by", lambda: "clock")
        patch.setattr(identity, "TRAINER_VERSION", 999)
        patch.setattr(unattended, "TRAINER_VERSION", 999)
        assert run_flow(retrain, more_images, home) is None
        state, reason = last_run(store)
        assert state == "skipped" and f"version {TRAINER_VERSION} then and 999 now" in reason
        assert len(Registry(home).versions("shapes")) == 2


def test_the_clocks_run_that_gets_its_turn_outside_the_hours_trains_nothing(second, more_images, home, monkeypatch):
    monkeypatch.setattr(outcomes, "asked_by", lambda: "clock")  # of the ticket; the flow's own start was in the hours
    hour = datetime.now(UTC).hour
    over = ScheduleConfig(window=f"{(hour + 12) % 24:02}:00-{(hour + 13) % 24:02}:00")
    assert run_flow(retrain, more_images.model_copy(update={"schedule": over}), home, force=True) is None
    with ImageStore.open(home) as store:
        state, reason = last_run(store)
    assert state == "skipped"
    assert "schedule.window" in (reason or "")


def last_run(store: ImageStore) -> tuple[str, str | None]:
    with store.read() as session:
        ticket = last_runs(session, ["shapes"])["shapes"]
    return ticket.state, ticket.reason
