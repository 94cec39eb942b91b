"""What publishing does with an outcome that the gate was given: aliases, history, repetition, a champion that moved."""

from __future__ import annotations

import json

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from prefect import flow

from deployments.takedown import clear_copies, copies_elsewhere
from flows.retrain import retrain
from sdlora.config import resolve
from sdlora.core.errors import EvaluationError, TakedownError
from sdlora.data.snapshot import latest_snapshot
from sdlora.evaluation.config import GateConfig
from sdlora.evaluation.gate import decide
from sdlora.lora.load import open_adapter
from sdlora.models.files.sources import load_base_model
from sdlora.records.champions import ScoredVersion
from sdlora.records.duel import load_duel
from sdlora.records.metrics import Estimate
from sdlora.store.champions import champion_history, record_manual_change
from sdlora.store.image_store import ImageStore
from tasks.publish import publish
from tasks.tracking import Registry
from tests.settings import run_flow
from tests.unit.deployments.test_takedown import named


@pytest.fixture(scope="module")
def published(config, home):
    """A state folder with one honest, unpromoted version, and a function that publishes another duel about it."""
    config = config.model_copy(update={"name": "published"})
    release = run_flow(retrain, config, home)
    base = load_base_model(config.base_model, home)
    settings = resolve(config, base, home)
    with ImageStore.open(home) as store:
        snapshot = latest_snapshot(store.existing_dataset("published"))
    ref = snapshot.ref("published")
    adapter = open_adapter(release.run.folder / "adapter")

    @flow
    def publish_again(duel):
        return publish(base, adapter, ref, duel, decide(duel, GateConfig()), settings, release.run, home)

    return home, release, publish_again


def history(home):
    with ImageStore.open(home) as store, store.read() as session:
        return champion_history(session, "published")


def refuse_champion(instead):
    """MLflow's own function, but for the alias `champion`."""
    real = MlflowClient.set_registered_model_alias

    def replaced(client, name, alias, version):
        return instead() if alias == "champion" else real(client, name, alias, version)

    return replaced


def clearly_better(duel):
    """The duel as it would be if the candidate's KID were far below the base's; all else as measured."""
    scores = duel.scores["candidate"]
    best = {**scores.metrics, "kid": Estimate(value=0.1, low=0.09, high=0.11)}
    best["seconds_per_image"] = duel.scores["base"].metrics["seconds_per_image"]
    even = Estimate(value=0.0, low=0.0, high=0.0)
    won = {**duel.against_base, "kid": Estimate(value=-1.0, low=-1.1, high=-0.9)}
    won.update(denoising_psnr=even, denoising_ssim=even)
    best["excess_copies"] = even
    return duel.model_copy(
        update={
            "scores": {**duel.scores, "candidate": scores.model_copy(update={"metrics": best})},
            "against_base": won,
        }
    )


def test_a_candidate_that_passes_the_gate_becomes_champion_on_recorded_evidence(published):
    home, release, publish_again = published
    duel = clearly_better(load_duel(release.run.evaluation))
    assert decide(duel, GateConfig()).promote, decide(duel, GateConfig()).reasons
    promoted = publish_again(duel)
    assert (promoted.version, promoted.promoted) == (1, True)
    registry = Registry(home)
    champion = registry.get("published", "champion")
    assert champion.number == 1
    assert champion.tags["evidence_digest"] == duel.digest()
    page = registry.client.get_model_version("published", "1").description
    assert page.startswith("**Not promoted.**")  # the page of the publication, which stays
    assert "Promoted to champion.** Clearly better than the base model" in page
    line = registry.client.get_registered_model("published").description
    assert "Champion: [version 1](#/models/published/versions/1)" in line
    refused, first = history(home).entries
    assert (refused.kind, refused.to_version) == ("refused", None)
    assert (first.kind, first.from_version, first.to_version) == ("first champion", None, 1)
    assert (first.who, first.why) == ("gate", "\n".join(decide(duel, GateConfig()).reasons))
    assert champion.tags["reasons"] == refused.why
    assert champion.tags["decision 2"].endswith("first champion: KID 0.1000 (base " + champion.tags["kid_base"] + ")")
    assert first.duel_digest == duel.digest()
    assert first.decision_digest == decide(duel, GateConfig()).digest()
    assert first.version.adapter_digest == champion.tags["adapter_digest"]
    assert first.version.run_digest == release.run.digest
    assert first.version.snapshot_digest == champion.tags["snapshot_digest"]
    assert (first.version.metric, first.version.score) == ("kid", 0.1)
    assert registry.client.get_registered_model("published").tags["champion_history"] == "2"


def test_publishing_twice_changes_nothing_more(published):
    home, release, publish_again = published
    publish_again(clearly_better(load_duel(release.run.evaluation)))
    registry = Registry(home)
    assert len(registry.versions("published")) == 1
    assert len(history(home).entries) == 2


def test_an_alias_that_mlflow_did_not_move_is_repaired_by_the_next_publish(published, monkeypatch):
    home, release, publish_again = published
    registry, measured = Registry(home), load_duel(release.run.evaluation)
    registry.client.delete_registered_model_alias("published", "champion")
    duel = clearly_better(measured)

    def away(*_: object) -> None:
        raise MlflowException("the server is away")

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.set_registered_model_alias", refuse_champion(away))
        with pytest.raises(MlflowException, match="away"):
            publish_again(duel)
    removed, again = history(home).entries[-2:]
    assert (removed.kind, removed.who, removed.to_version) == ("moved by hand", "a person in MLflow", None)
    assert (again.kind, again.to_version) == ("first champion", 1)
    assert registry.get("published", "champion") is None
    assert publish_again(duel).promoted
    assert registry.get("published", "champion").number == 1
    assert history(home).entries[-1] == again


def test_another_publish_repairs_the_alias_first_and_takes_it_for_no_move_of_a_person(published):
    home, release, publish_again = published
    registry = Registry(home)
    before = history(home)
    # As if the process had ended between the row and the alias.
    registry.client.delete_registered_model_alias("published", "champion")
    registry.client.set_registered_model_tag("published", "champion_history", str(before.length - 1))
    duel = load_duel(release.run.evaluation).model_copy(update={"champion_digest": "f" * 64})
    with pytest.raises(EvaluationError, match="changed during the duel"):
        publish_again(duel)
    assert registry.get("published", "champion").number == 1
    assert history(home) == before


def test_a_promotion_of_another_process_while_this_one_publishes_voids_the_duel(published, monkeypatch):
    home, release, publish_again = published
    duel = clearly_better(load_duel(release.run.evaluation))
    other = ScoredVersion(9, "9" * 64)
    register, registry = Registry.register, Registry(home)
    noted = json.loads(registry.client.get_model_version("published", "1").tags["sdlora"])
    del noted["published"]  # as if the process had ended before its last line
    registry.client.set_model_version_tag("published", "1", "sdlora", json.dumps(noted))

    def slow(*arguments: object, **named: object):
        registered = register(*arguments, **named)
        with ImageStore.open(home) as store, store.write() as session:
            record_manual_change(
                session, champion_history(session, "published"), "moved by hand", other, "ana", "meanwhile"
            )
        return registered

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "register", slow)
        with pytest.raises(EvaluationError, match="changed during the duel: version 1 before, version 9 now"):
            publish_again(duel)
    assert Registry(home).get("published", "champion").number == 1
    # Version 9 is in no registry, so the alias that is there counts again.
    assert publish_again(duel).promoted
    assert history(home).champion.number == 1


def test_a_champion_that_changed_meanwhile_voids_the_duel(published):
    _, release, publish_again = published
    duel = load_duel(release.run.evaluation).model_copy(update={"champion_digest": "f" * 64})
    with pytest.raises(EvaluationError, match="changed during the duel"):
        publish_again(duel)


def test_the_adapter_comes_back_out_of_the_store_when_its_folder_is_gone(published):
    home, _, _ = published
    registry = Registry(home)
    before = registry.fetch(registry.get("published", 1), home)
    aside = before.folder.rename(before.folder.with_name("aside"))
    fetched = registry.fetch(registry.get("published", 1), home)
    assert fetched.folder != before.folder
    assert open_adapter(fetched.folder).digest == before.digest
    aside.rename(before.folder)


def test_a_takedown_reaches_the_copies_that_mlflow_keeps_and_names_those_of_another_mlflow(published, monkeypatch):
    home, release, _ = published
    (version,) = Registry(home).versions("published")
    shown = load_duel(release.run.evaluation).samples[0].held_out_sha256
    artifacts = home / "mlflow" / "artifacts" / "published"
    (grid,) = artifacts.rglob(f"{version.run_id}/artifacts/images/grid.png")
    before = grid.read_bytes()
    assert any(str(artifacts) in page for page in named(home, shown))
    with ImageStore.open(home) as store:
        lineage = store.purge(shown, "a takedown", "ana").lineage
        assert copies_elsewhere(home, lineage) == []
        cleared = clear_copies(store, lineage)
    assert not named(home, shown)
    assert grid in cleared.pictures
    assert grid.read_bytes() == (release.run.evaluation / "grid.png").read_bytes() != before
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
    (line,) = (line for line in copies_elsewhere(home, lineage) if line.startswith("published version 1"))
    assert f"run {version.run_id}" in line
    assert f"model {version.source.rpartition('/')[2]}" in line


def test_a_version_whose_image_is_purged_while_it_is_registered_is_withdrawn(config, tmp_path, monkeypatch):
    home, register = tmp_path / "home", Registry.register

    def registered(registry, *arguments, **named):
        version = register(registry, *arguments, **named)
        assert list((home / "mlflow" / "artifacts").rglob("*.safetensors"))
        with ImageStore.open(home) as store:
            store.purge(latest_snapshot(store.dataset("shapes")).train[0].sha256, "a takedown", "ana")
        return version

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "register", registered)
        with pytest.raises(TakedownError, match=r"shapes version 1 cannot be published.*purged by ana"):
            run_flow(retrain, config, home)
    assert Registry(home).versions("shapes") == []
    weights = [path for path in home.rglob("*.safetensors") if "cache" not in path.parts]
    assert weights == []
    with ImageStore.open(home) as store:
        assert store.snapshots()[0].versions == ()
    assert Registry(home).number_of("shapes", "f" * 64) == 2  # MLflow never gives a number twice
