from __future__ import annotations

import json
import os
import shutil
import time
from fnmatch import fnmatch

import pytest
import torch
from pydantic import ValidationError

from sdlora.core.errors import WeightsError
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.digests import DigestCache, folder_digest
from sdlora.models.files.sources import load_base_model, verify
from sdlora.models.stable_diffusion import StableDiffusion
from tests.original import write_original_checkpoint


def load(source, home, **options):
    return load_base_model(BaseModelConfig(source=str(source), **options), home)


def test_a_folder_has_the_same_digest_wherever_it_is(base, base_folder, tmp_path):
    copy = shutil.copytree(base_folder, tmp_path / "elsewhere")
    (copy / "README.md").write_text("not part of the model")
    assert load(copy, tmp_path / "home").digest == base.digest


def test_changing_one_byte_of_the_weights_changes_the_digest(base, base_folder, tmp_path):
    copy = shutil.copytree(base_folder, tmp_path / "copy")
    flip_last_byte(copy / "unet" / "diffusion_pytorch_model.safetensors")
    assert load(copy, tmp_path / "home").digest != base.digest


def test_changing_a_setting_changes_the_digest(base, base_folder, tmp_path):
    copy = shutil.copytree(base_folder, tmp_path / "copy")
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("v_prediction", "epsilon"))
    assert load(copy, tmp_path / "home").digest != base.digest


def test_verify_notices_a_base_model_that_changed_later(base, base_folder, tmp_path):
    ref = load(shutil.copytree(base_folder, tmp_path / "copy"), tmp_path / "home")
    verify(ref, tmp_path / "home")
    flip_last_byte(ref.folder / "vae" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match=ref.digest[:12]):
        verify(ref, tmp_path / "home")


def test_a_second_look_reads_no_weights(base_folder, tmp_path):
    folder = shutil.copytree(base_folder, tmp_path / "copy")
    settled = time.time() - 60
    for path in folder.rglob("*"):
        os.utime(path, (settled, settled))
    cache = tmp_path / "cache" / "digests.json"
    first = folder_digest(folder, DigestCache(cache))
    known = json.loads(cache.read_text())
    cache.write_text(json.dumps({path: [*entry[:2], "0" * 64] for path, entry in known.items()}))
    assert folder_digest(folder, DigestCache(cache)) != first  # the remembered digests were believed
    cache.write_text("damaged")
    assert folder_digest(folder, DigestCache(cache)) == first


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.pth", "model.bin"])
def test_a_pickle_is_refused_before_it_is_opened(name, tmp_path):
    (tmp_path / name).write_bytes(b"\x80\x04 anything")
    with pytest.raises(WeightsError, match=rf"{name} is a pickle.*safetensors"):
        load(tmp_path / name, tmp_path)


def test_a_folder_with_pickled_weights_is_refused_with_the_remedy(base_folder, tmp_path):
    copy = shutil.copytree(base_folder, tmp_path / "copy")
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(WeightsError, match=r"diffusion_pytorch_model.bin is a pickle.*safe_serialization=True"):
        load(copy, tmp_path)


@pytest.mark.parametrize(
    "missing",
    [
        "model_index.json",
        "unet/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_missing_file_is_named(missing, base_folder, tmp_path):
    copy = shutil.copytree(base_folder, tmp_path / "copy")
    (copy / missing).unlink()
    with pytest.raises(WeightsError, match=missing):
        load(copy, tmp_path)


@pytest.mark.parametrize("damaged", ["unet/config.json", "model_index.json", "tokenizer/tokenizer.json"])
@pytest.mark.parametrize("content", ['{"half', "[]"])
def test_damaged_settings_are_named(damaged, content, base_folder, tmp_path):
    copy = shutil.copytree(base_folder, tmp_path / "copy")
    (copy / damaged).write_text(content)
    with pytest.raises(WeightsError, match=rf"{damaged} is damaged"):
        load(copy, tmp_path)


def test_truncated_weights_are_named(base_folder, tmp_path):
    copy = shutil.copytree(base_folder, tmp_path / "copy")
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1000)
    with pytest.raises(WeightsError, match=rf"{weights.name} is damaged"):
        load(copy, tmp_path)


def test_weights_of_another_shape_are_refused_not_filled_with_random_numbers(base_folder, tmp_path):
    copy = shutil.copytree(base_folder, tmp_path / "copy")
    path = copy / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layers_per_block": 2}))
    with pytest.raises(WeightsError, match="unet"):
        StableDiffusion.from_ref(load(copy, tmp_path))


def test_another_model_family_is_refused_by_name(base_folder, tmp_path):
    copy = shutil.copytree(base_folder, tmp_path / "copy")
    path = copy / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "KandinskyPipeline"}))
    with pytest.raises(WeightsError, match="'KandinskyPipeline'"):
        load(copy, tmp_path)


def test_a_single_checkpoint_draws_what_its_folder_draws(base, base_folder, tmp_path):
    path = write_original_checkpoint(base_folder, tmp_path / "one.safetensors")
    ref = load(path, tmp_path / "home", layout=str(base_folder))
    assert ref.folder.parent == (tmp_path / "home" / "bases").resolve()
    drawn = StableDiffusion.from_ref(ref, precision="fp32").generate(["a red circle"], [3], steps=2)
    expected = StableDiffusion.from_ref(base, precision="fp32").generate(["a red circle"], [3], steps=2)
    assert torch.equal(drawn, expected)
    converted = (ref.folder / "model_index.json").stat().st_mtime_ns
    assert load(path, tmp_path / "home", layout=str(base_folder)) == ref
    assert (ref.folder / "model_index.json").stat().st_mtime_ns == converted  # converted once


def test_a_single_checkpoint_without_or_with_a_wrong_layout_says_what_is_needed(base_folder, tmp_path):
    path = write_original_checkpoint(base_folder, tmp_path / "one.safetensors")
    with pytest.raises(WeightsError, match=r"base_model\.layout"):
        load(path, tmp_path)
    wrong = shutil.copytree(base_folder, tmp_path / "wrong")
    settings = wrong / "unet" / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"block_out_channels": [8, 16, 32]}))
    with pytest.raises(WeightsError, match=r"layout .*wrong.*same architecture"):
        load(path, tmp_path, layout=str(wrong))
    assert not [path for path in (tmp_path / "bases").glob("*") if path.is_dir()]


@pytest.mark.parametrize("source", ["/no/such/folder", "no-such-folder", "someone/model"])
def test_a_missing_source_lists_what_can_be_given(source, tmp_path):
    with pytest.raises(WeightsError, match=rf"{source}.*a diffusers folder"):
        load(source, tmp_path)


def test_a_hub_id_without_a_pinned_revision_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"base_model\.revision"):
        load("someone/model", tmp_path)
    with pytest.raises(ValidationError, match="'main' is not a commit"):
        BaseModelConfig(source="someone/model", revision="main")


def test_a_hub_id_without_network_names_the_remedy(tmp_path):
    with pytest.raises(WeightsError, match=r"someone/model.*local folder"):
        load("someone/model", tmp_path, revision="0" * 40)


def flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_of_a_hub_repository_only_the_parts_folders_are_fetched(base_folder, tmp_path, monkeypatch):
    import huggingface_hub

    repository = shutil.copytree(base_folder, tmp_path / "repository")
    (repository / "whole-model.safetensors").write_bytes(b"the same once more")
    (repository / "safety_checker").mkdir()
    (repository / "safety_checker" / "model.safetensors").write_bytes(b"not needed")

    def snapshot_download(_name, *, revision, local_dir, allow_patterns):
        for path in repository.rglob("*"):
            name = path.relative_to(repository).as_posix()
            if path.is_file() and any(fnmatch(name, pattern) for pattern in allow_patterns):
                (local_dir / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, local_dir / name)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    ref = load("someone/model", tmp_path / "home", revision="0" * 40)
    assert ref.digest == load(base_folder, tmp_path).digest
    assert not (ref.folder / "whole-model.safetensors").exists()
    assert not (ref.folder / "safety_checker").exists()
