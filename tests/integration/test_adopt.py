"""An adapter that was made elsewhere fights for a style like one that was trained here; its images stay unknown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from flows.adopt import adopt
from flows.retrain import retrain
from sdlora.config import PipelineConfig
from sdlora.core.errors import BaseMismatchError, ConfigError, WeightsError
from sdlora.core.progress import SILENT
from sdlora.core.tensor_header import read_header
from sdlora.evaluation.gate import decide as decide_by_rule
from sdlora.integrity.adapters import adapter_folders
from sdlora.integrity.verify import verify
from sdlora.lora.attach import attach_lora
from sdlora.lora.manifest import read_manifest
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.records.champions import ChampionHistory
from sdlora.records.duel import load_duel
from sdlora.release.config import ExportConfig
from sdlora.store.champions import champion_history
from sdlora.store.image_store import ImageStore
from sdlora.store.lineage import adopted_versions
from tasks.results import Release
from tasks.tracking import Registry
from tasks.tracking.copies import registered_copies
from tests import families
from tests.settings import filled_lora, make_style, run_flow
from tests.tiny import tiny_base_model
from tests.unit.lora.perturb import perturb_adapter
from tests.unit.lora.test_files import save


def made_elsewhere(base_folder: Path, folder: Path, *, seed: int = 0, method: str = "lora") -> Path:
    """A file with the tensors of kohya's program alone, without a word about its training."""
    base = load_base_model(BaseModelConfig(source=str(base_folder)), folder)
    config = filled_lora(method=method, rank=3, alpha=6, targets="attention")
    denoiser = perturb_adapter(attach_lora(parts.load_denoiser(base), config), seed=seed)
    adapter = save(folder / f"adapter-{seed}-{method}", denoiser, config, base)
    file = folder / f"theirs-{seed}-{method}.safetensors"
    save_file(load_file(adapter.folder / "style.safetensors"), file)
    return file


@pytest.fixture(scope="module")
def theirs(base_folder, tmp_path_factory) -> Path:
    return made_elsewhere(base_folder, tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(scope="module")
def config(config: PipelineConfig, tmp_path_factory) -> PipelineConfig:
    loras = tmp_path_factory.mktemp("loras")
    return config.model_copy(update={"name": "adopting", "export": ExportConfig(on_promote=str(loras))})


@pytest.fixture(scope="module")
def adopted(config, theirs, home) -> Release:
    """The first version of the style, from a file that passed the gate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.evaluate.decide_by_rule", passed)
        return run_flow(adopt, config, home, file=theirs, who="ann", why="bought\nfrom its maker.")


def passed(duel, gate):
    """The decision of the gate if the candidate had passed; the tiny networks of the tests draw noise."""
    return decide_by_rule(duel, gate).model_copy(update={"promote": True, "reasons": ("Clearly better.",)})


def history(home: Path, style: str = "adopting") -> ChampionHistory:
    with ImageStore.open(home) as store, store.read() as session:
        return champion_history(session, style)


def test_an_adopted_file_becomes_the_first_champion_with_evidence_and_unknown_images(adopted, config, theirs, home):
    assert (adopted.version, adopted.new, adopted.promoted) == (1, True, True)
    (entry,) = history(home).entries
    assert (entry.kind, entry.from_version, entry.to_version, entry.passed_gate) == ("adopted", None, 1, True)
    assert (entry.version.snapshot_digest, entry.version.train_count) == (None, None)
    origin, reason = entry.why.splitlines()
    assert origin.startswith("Adopted from the file theirs-0-lora.safetensors (")
    assert origin.endswith(r") by ann, training images unknown: bought\nfrom its maker.")
    assert reason == "Clearly better."
    with ImageStore.open(home) as store:
        dataset = store.existing_dataset("adopting")
        learnt = [dataset.details(image.sha256).trained_versions for image in dataset.images()]
        assert "adopting" not in {version.name for versions in learnt for version in versions}
        assert [snapshot.versions for snapshot in dataset.snapshots()] == [()]
        with store.read() as session:
            assert ("adopting", 1) in [(version.name, version.number) for version in adopted_versions(session)]
    registry = Registry(home)
    version = registry.get("adopting", "champion")
    assert (version.number, version.snapshot_digest, version.train_count) == (1, None, None)
    assert "unknown" in version.tags["images"]
    assert read_manifest(adopted.run.folder / "adapter").lora.rank == 3
    duel = load_duel(adopted.evaluation)
    assert (duel.candidate_snapshot_digest, duel.champion_digest) == ("unknown", None)
    report, card = (adopted.report.read_text(), (adopted.run.release / "README.md").read_text())
    page = registry.client.get_model_version("adopting", "1").description
    for text in (report, card.replace("\\", ""), page.replace("\\", "")):
        assert "theirs-0-lora.safetensors" in text
        assert "training images unknown" in text
        assert "rained on 1" not in text  # no number of images
    assert "one that was adopted from a file may have" in report
    assert "steps" not in report.split("Configuration</summary>")[1].split("evaluation.")[0]
    assert "license: unknown" in card
    assert adopted.export.problem is None
    assert read_header(Path(adopted.export.file)).metadata["sdlora.snapshot_digest"] == "unknown"


def test_a_deep_check_restores_the_adapter_of_a_file_from_its_other_copies(adopted, home):
    weights = adopted.run.folder / "adapter" / "pytorch_lora_weights.safetensors"
    whole = weights.read_bytes()
    weights.unlink()  # its copies may be the same bytes on the disk
    weights.write_bytes(whole[:-1] + b"?")
    with ImageStore.open(home) as store, registered_copies(home) as registered:
        found = verify(home, store, registered, SILENT.on_progress, repair=True)
    (damage,) = (one for one in found if str(weights) in one.where)
    assert damage.repaired
    remedies = {one.remedy for one in adapter_folders(home) if one.run == adopted.run.folder.name}
    assert remedies == {f"Delete {adopted.run.folder} and adopt the file again: sdlora adopt adopting FILE."}
    assert weights.read_bytes() == whole


def test_the_same_file_is_not_judged_again_unless_asked(adopted, config, theirs, home):
    again = run_flow(adopt, config, home, file=theirs)
    assert (again.version, again.new, again.promoted, again.run) == (1, False, True, adopted.run)
    assert history(home).length == 1
    judged = run_flow(adopt, config, home, file=theirs, who="ben", force=True)
    assert judged.version == 1
    first, later = history(home).entries
    assert (first.kind, later.kind, later.to_version) == ("adopted", "not confirmed", 1)
    assert later.version.snapshot_digest is None
    assert "by ben, training images unknown." in later.why


def test_the_next_retraining_fights_against_the_adopted_champion(adopted, config, home):
    release = run_flow(retrain, config, home)
    duel = load_duel(release.evaluation)
    assert (release.version, release.new) == (2, True)
    assert duel.champion_digest == history(home).champion.adapter_digest
    assert duel.champion_snapshot_digest == "unknown"
    assert "one that was adopted from a file may have" in release.report.read_text()
    assert "Trained on the same images" not in " ".join(release.reasons)
    assert run_flow(retrain, config, home).new is False


def test_a_second_file_is_a_candidate_that_the_gate_refuses(adopted, config, base_folder, home, tmp_path):
    other = made_elsewhere(base_folder, tmp_path, seed=1)
    before = history(home)
    release = run_flow(adopt, config, home, file=other)
    duel = load_duel(release.evaluation)
    assert (duel.champion_digest, duel.champion_snapshot_digest) == (before.champion.adapter_digest, "unknown")
    entry = history(home).entries[-1]
    assert (release.promoted, entry.kind, entry.to_version) == (False, "refused", 1)
    assert Registry(home).get("adopting", "champion").number == 1


def test_a_killed_publishing_is_finished_by_the_same_command(config, theirs, home, monkeypatch):
    style = config.model_copy(update={"name": "killed-adoption", "export": ExportConfig()})

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.create_model_version", killed)
        with pytest.raises(KeyboardInterrupt):
            run_flow(adopt, style, home, file=theirs)
    release = run_flow(adopt, style, home, file=theirs)
    assert (release.version, release.new) == (1, True)
    assert [entry.kind for entry in history(home, "killed-adoption").entries] == ["refused"]


def test_a_style_whose_base_changed_keeps_its_champion_and_gets_a_remedy(adopted, config, theirs, home, tmp_path):
    other = tiny_base_model(tmp_path / "other", seed=1)
    changed = config.model_copy(update={"base_model": config.base_model.model_copy(update={"source": str(other)})})
    before = history(home)
    message = r"champion of 'adopting' \(version 1\) was made for the base model .*tiny.*setting: data\.dataset"
    for flow, parameters in ((adopt, {"file": theirs}), (retrain, {})):
        with pytest.raises(ConfigError, match=message):
            run_flow(flow, changed, home, **parameters)
    assert history(home) == before


def test_files_that_cannot_be_adopted_leave_no_trace(config, base_folder, home, tmp_path):
    style = config.model_copy(update={"name": "refused-files"})
    loha = made_elsewhere(base_folder, tmp_path, method="loha")
    wide = tmp_path / "wide.safetensors"
    tensors = load_file(made_elsewhere(base_folder, tmp_path))
    inputs = {name: tensor.repeat_interleave(2, -1) for name, tensor in tensors.items() if "lora_down" in name}
    save_file({**tensors, **inputs}, wide)
    for file, error, message in (
        (loha, WeightsError, "is a LoHa. Only a LoRA or a DoRA"),
        (wide, BaseMismatchError, "does not fit the base model"),
        (tmp_path, WeightsError, "is a folder. Name the .safetensors file in it"),
    ):
        with pytest.raises(error, match=message):
            run_flow(adopt, style, home, file=file)
    assert not Registry(home).versions("refused-files")
    assert not (home / "runs" / "refused-files").exists()
    with ImageStore.open(home) as store:
        assert "refused-files" not in store.dataset_names()


def test_the_command_adopts_a_file_and_names_the_bases_that_another_fits(settings, base_folder, theirs, tmp_path):
    home = tmp_path / "home"
    sections = {name: value for name, value in settings.items() if name not in ("name", "data")}
    images = Path(settings["data"]["sources"][0])
    make_style(home, "comics", images, **sections, data={**settings["data"]})
    other = tmp_path / "other"
    families.build("sd2", other)
    make_style(home, "props", images, **{**sections, "base_model": {"source": str(other)}}, data={**settings["data"]})

    def command(style: str) -> subprocess.CompletedProcess[str]:
        # Not this process's Prefect: the command starts a server of its own, as it does for a user.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        words = [sys.executable, "-m", "deployments.cli", "--home", str(home), "adopt", style, str(theirs), "--json"]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600)

    refused = command("props")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"It fits: {base_folder}, the base of the style comics." in refused.stderr
    done = command("comics")
    assert done.returncode == 0, done.stderr
    release = json.loads(done.stdout)
    assert (release["name"], release["version"], release["is_new"]) == ("comics", 1, True)
