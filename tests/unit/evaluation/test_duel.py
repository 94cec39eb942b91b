from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from PIL import Image

from sdlora.core.errors import EvaluationError
from sdlora.core.files import file_sha256
from sdlora.core.refs import AdapterRef, BaseModelRef
from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import Snapshot, make_snapshot
from sdlora.evaluation.config import EvaluationConfig, GateConfig
from sdlora.evaluation.contest import Contest
from sdlora.evaluation.duel import run_duel
from sdlora.evaluation.gate import decide
from sdlora.lora.attach import adapter_parameters, attach_lora
from sdlora.lora.manifest import AdapterOrigin
from sdlora.lora.save import save_adapter
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.models.parts import load_denoiser
from sdlora.records.duel import Duel, load_duel
from sdlora.records.metrics import METRICS
from sdlora.store.image_store import ImageStore
from tests.settings import filled_lora
from tests.tiny import draw_images, tiny_base_model

CONFIG = EvaluationConfig(max_prompts=6, batch_size=4, steps=2, denoising_steps=2, resamples=100, shown_prompts=3)


@dataclass
class Arena:
    """Everything a duel needs, on a base model and images that exist once per module."""

    base: BaseModelRef
    champion: AdapterRef
    candidate: AdapterRef
    snapshot: Snapshot
    store: ImageStore
    stages: list[tuple[str, int, int]] = field(default_factory=list)

    def duel(self, folder: Path, *, champion: bool = True, config: EvaluationConfig = CONFIG) -> Duel:
        self.stages.clear()
        rival = self.champion if champion else None
        contest = Contest(self.base, self.snapshot, self.store, config, lambda *stage: self.stages.append(stage))
        return run_duel(contest, self.candidate, rival, folder)

    @property
    def drawn_by(self) -> set[str]:
        """Who drew images in the last duel, batch by batch; the cache reports all at once."""
        return {stage.removeprefix("draw with ") for stage, done, _ in self.stages if "draw" in stage and done == 4}


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    root = tmp_path_factory.mktemp("arena")
    base = load_base_model(BaseModelConfig(source=str(tiny_base_model(root / "base"))), root / "home")
    with ImageStore.open(root / "home") as store:
        config = DataConfig(near_duplicate_difference=0, suspect_difference=0, held_out_fraction=0.4)
        dataset = store.dataset("icons")
        collect(dataset, str(draw_images(root / "images", 30)), config)
        clean(dataset, config)
        snapshot = make_snapshot(dataset, config)
        adapters = [make_adapter(root / name, base, snapshot, strength) for name, strength in (("a", 0.02), ("b", 0.3))]
        yield Arena(base, *adapters, snapshot, store)


def make_adapter(folder: Path, base: BaseModelRef, snapshot: Snapshot, strength: float) -> AdapterRef:
    config = filled_lora(rank=2, alpha=2.0)
    unet = attach_lora(load_denoiser(base), config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter_parameters(unet).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * strength)
    origin = AdapterOrigin("style", snapshot.digest, folder.name, "v_prediction", resolution_px=64)
    return save_adapter(folder, unet, config, base, origin)


@pytest.fixture(scope="module")
def fought(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> tuple[Duel, Path]:
    folder = tmp_path_factory.mktemp("duel")
    return arena.duel(folder), folder


def test_every_contestant_has_every_metric_with_an_interval_around_it(fought: tuple[Duel, Path]) -> None:
    duel, _ = fought
    assert duel.contestants == ("base", "champion", "candidate")
    for scores in duel.scores.values():
        assert scores.metrics.keys() == METRICS.keys()
        assert all(e.low <= e.value <= e.high for name, e in scores.metrics.items() if name != "kid")
    assert all("missing" not in reason.lower() for reason in decide(duel, GateConfig()).reasons)


def test_adapters_change_the_samples_and_the_scores_but_not_the_autoencoder(fought: tuple[Duel, Path]) -> None:
    duel, folder = fought
    kid, psnr = (
        [scores.metrics[name].value for scores in duel.scores.values()] for name in ("kid", "reconstruction_psnr")
    )
    assert len(set(kid)) == 3
    assert len(set(psnr)) == 1
    assert abs(duel.against_base["kid"].value - (kid[2] - kid[0])) < 1e-9
    pictures = {(folder / "samples" / f"00-{name}.png").read_bytes() for name in ("base", "champion", "candidate")}
    assert len(pictures) == 3


def test_prompts_come_from_held_out_images_only(fought: tuple[Duel, Path], arena: Arena) -> None:
    duel, _ = fought
    captions = {row.sha256: row.captions for row in arena.snapshot.held_out}
    trained = {row.sha256 for row in arena.snapshot.train}
    assert len(duel.samples) == 6 < len(captions)
    assert all(sample.prompt in captions[sample.held_out_sha256] for sample in duel.samples)
    assert all(sample.nearest_training_sha256 in trained for sample in duel.samples)
    assert len({sample.seed for sample in duel.samples}) == 6


def test_all_named_images_are_there_and_are_images(fought: tuple[Duel, Path]) -> None:
    duel, folder = fought
    assert {duel.grid, duel.before_after_grid, duel.nearest_grid} < duel.files.keys()
    assert len(duel.shown) == 3
    for name, digest in duel.files.items():
        assert file_sha256(folder / name) == digest
        with Image.open(folder / name) as image:
            assert min(image.size) >= 64


def test_the_file_holds_the_evidence(fought: tuple[Duel, Path]) -> None:
    duel, folder = fought
    assert load_duel(folder).digest() == duel.digest()
    assert str(folder) not in (folder / "duel.json").read_text()


def test_a_finished_duel_is_taken_as_it_is(fought: tuple[Duel, Path], arena: Arena) -> None:
    duel, folder = fought
    assert arena.duel(folder).digest() == duel.digest()
    assert arena.stages == []


@pytest.mark.parametrize("cached", [True, False])
def test_a_duel_with_a_damaged_picture_draws_it_again_and_stays_the_same_duel(
    cached: bool, arena: Arena, tmp_path: Path
) -> None:
    duel = arena.duel(tmp_path)
    (tmp_path / duel.grid).write_bytes(b"torn")
    record, cache = (tmp_path / "duel.json").read_bytes(), arena.store.home / "cache" / "generations"
    if not cached:
        cache.rename(tmp_path / "generations")  # times would be measured again
    again = arena.duel(tmp_path)
    assert arena.stages
    assert again.digest() == duel.digest()
    assert (tmp_path / "duel.json").read_bytes() == record
    if not cached:
        shutil.rmtree(cache)
        (tmp_path / "generations").rename(cache)
    assert file_sha256(tmp_path / duel.grid) == duel.files[duel.grid]


def test_what_was_drawn_before_costs_nothing_the_second_time(
    fought: tuple[Duel, Path], arena: Arena, tmp_path: Path
) -> None:
    duel, _ = fought
    again = arena.duel(tmp_path)
    assert arena.drawn_by == set()
    assert again.digest() == duel.digest()  # times included: they are kept with the images


@pytest.mark.parametrize("damage", ["truncated", "one byte"])
def test_a_damaged_cache_is_drawn_again_to_the_same_images(
    damage: str, fought: tuple[Duel, Path], arena: Arena, tmp_path: Path
) -> None:
    duel, _ = fought
    shards = sorted((arena.store.home / "cache" / "generations").glob("*.safetensors"))
    whole = shards[0].read_bytes()
    shards[0].write_bytes(whole[:1000] if damage == "truncated" else whole[:-1] + bytes([whole[-1] ^ 64]))
    again = arena.duel(tmp_path)
    assert len(arena.drawn_by) == 1
    assert all(file_sha256(path) == path.stem for path in shards[0].parent.iterdir())
    assert len(list(shards[0].parent.iterdir())) == len(shards)
    assert again.files == duel.files
    kid, kid_again = (one.scores["candidate"].metrics["kid"].value for one in (duel, again))
    assert kid_again == pytest.approx(kid, rel=1e-4)  # batches in other memory round differently


@pytest.mark.parametrize("kind", ["features", "reconstructions"])
def test_a_flipped_byte_in_a_cache_does_not_change_a_score(
    kind: str, fought: tuple[Duel, Path], arena: Arena, tmp_path: Path
) -> None:
    duel, _ = fought
    shards = sorted((arena.store.home / "cache" / kind).glob("*.safetensors"))
    assert shards
    for shard in shards:
        content = bytearray(shard.read_bytes())
        content[-2] ^= 64  # the exponent of a float32, a pixel of an image
        shard.write_bytes(content)
    again = arena.duel(tmp_path)
    for metric in ("kid", "fid", "reconstruction_psnr"):
        before, after = (one.scores["base"].metrics[metric].value for one in (duel, again))
        assert after == pytest.approx(before, rel=1e-4)


def test_without_a_champion_only_the_base_is_the_rival(arena: Arena, tmp_path: Path) -> None:
    duel = arena.duel(tmp_path, champion=False)
    assert duel.contestants == ("base", "candidate")
    assert duel.champion_digest is None
    assert duel.against_champion == {}
    assert all(row.champion is None for row in duel.shown)


def test_other_settings_draw_other_images_in_another_duel(
    fought: tuple[Duel, Path], arena: Arena, tmp_path: Path
) -> None:
    duel, folder = fought
    other = arena.duel(tmp_path, champion=False, config=CONFIG.model_copy(update={"guidance_scale": 7.0}))
    assert other.inputs_digest != duel.inputs_digest
    assert arena.drawn_by == {"base", "candidate"}
    assert (tmp_path / other.shown[0].base).read_bytes() != (folder / duel.shown[0].base).read_bytes()


def test_an_adapter_for_another_base_is_refused(arena: Arena, tmp_path: Path) -> None:
    stranger = arena.candidate.model_copy(update={"base_digest": "f" * 64})
    with pytest.raises(EvaluationError, match=r"candidate .* was trained on base model ffffffffffff"):
        run_duel(Contest(arena.base, arena.snapshot, arena.store, CONFIG), stranger, None, tmp_path)


def test_too_few_held_out_images_are_refused_with_the_setting(arena: Arena, tmp_path: Path) -> None:
    config = EvaluationConfig(min_prompts=100, max_prompts=100)
    with pytest.raises(EvaluationError, match=r"evaluation\.min_prompts asks for 100"):
        arena.duel(tmp_path, config=config)


def test_a_duel_that_is_no_json_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "duel.json").write_text(json.dumps({"scores": 1}))
    with pytest.raises(EvaluationError, match="is not a finished duel"):
        load_duel(tmp_path)
