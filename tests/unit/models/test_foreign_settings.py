"""What a base model's JSON files say is bounded before it is believed: no memory, no minutes, one clear message."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sdlora.core.errors import WeightsError
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.models.stable_diffusion import StableDiffusion

SCHEDULER, UNET, VAE = "scheduler/scheduler_config.json", "unet/config.json", "vae/config.json"
TEXT, TOKENIZER = "text_encoder/config.json", "tokenizer/tokenizer_config.json"
_MEGABYTES = 2**20


class Peak:
    """Most memory of this process since the last `reset`, beyond what it had then."""

    def reset(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self.before = self._read("VmRSS")

    def grown_bytes(self) -> int:
        return self._read("VmHWM") - self.before

    def _read(self, name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@pytest.fixture
def peak():
    measured = Peak()
    try:
        measured.reset()
    except OSError:
        pytest.skip("needs Linux")
    return measured


@pytest.fixture
def copy(base_folder, tmp_path):
    return shutil.copytree(base_folder, tmp_path / "copy")


def load(folder):
    return load_base_model(BaseModelConfig(source=str(folder)), folder.parent)


def change(path, setting, value):
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {setting: value}))


@pytest.mark.parametrize(
    ("file", "setting", "value"),
    [
        (SCHEDULER, "num_train_timesteps", 10**9),
        (SCHEDULER, "num_train_timesteps", 0),
        (SCHEDULER, "num_train_timesteps", "1000"),
        (SCHEDULER, "beta_end", float("nan")),
        (SCHEDULER, "trained_betas", [0.1] * 20_000),
        (UNET, "sample_size", 10**6),
        (UNET, "sample_size", [16, 16]),
        (UNET, "block_out_channels", [8] * 40),
        (UNET, "layers_per_block", 10**9),
        (UNET, "in_channels", 10**400),
        (VAE, "block_out_channels", []),
        (VAE, "scaling_factor", 0),
        (VAE, "scaling_factor", float("inf")),
        (VAE, "shift_factor", float("nan")),
        (TEXT, "num_hidden_layers", 10**7),
        (TEXT, "vocab_size", 10**12),
        (TEXT, "max_position_embeddings", 10**9),
        (TOKENIZER, "model_max_length", 10**30),
        (TOKENIZER, "model_max_length", None),
    ],
    ids=lambda value: str(value)[:25],
)
def test_a_size_that_no_model_has_is_refused_by_name(file, setting, value, copy, peak):
    change(copy / file, setting, value)
    with pytest.raises(WeightsError, match=rf"{file}.*{setting}"):
        load(copy)
    assert peak.grown_bytes() < 100 * _MEGABYTES


@pytest.mark.parametrize(
    ("file", "setting", "value"),
    [
        (UNET, "layers_per_block", 500),
        (UNET, "transformer_layers_per_block", 10**6),
        (UNET, "block_out_channels", [8, 16, 2**17]),
        (UNET, "cross_attention_dim", 2**17),
        (UNET, "time_embedding_dim", 10**12),
        (UNET, "attention_head_dim", 0),
        (UNET, "act_fn", ["silu"]),
        (VAE, "layers_per_block", 500),
        (VAE, "norm_num_groups", 0),
        (TEXT, "num_hidden_layers", 500),
        (TEXT, "intermediate_size", 10**12),
        (TEXT, "intermediate_size", 10**30),
        (TEXT, "vocab_size", 2**22),
    ],
    ids=lambda value: str(value)[:25],
)
def test_a_network_that_is_larger_than_its_weights_is_not_built(file, setting, value, copy, peak):
    change(copy / file, setting, value)
    if setting == "cross_attention_dim":
        change(copy / TEXT, "hidden_size", value)  # the two are compared with each other first
    ref = load(copy)
    for use in (lambda: StableDiffusion.from_ref(ref), lambda: StableDiffusion(ref).init_model()):
        peak.reset()
        with pytest.raises(WeightsError, match=r"config\.json describes (a|no) network"):
            use()
        assert peak.grown_bytes() < 100 * _MEGABYTES
    if file == UNET:
        with pytest.raises(WeightsError, match=r"unet.config\.json describes"):
            parts.denoiser_outline(ref)


@pytest.mark.parametrize(
    "file", ["model_index.json", SCHEDULER, UNET, VAE, TEXT, "tokenizer/tokenizer.json", TOKENIZER]
)
@pytest.mark.parametrize("content", ["[" * 3000, '{"a":' * 3000, '{"a": ' + "9" * 5000 + "}", '{"a": "\udcff"}', ""])
def test_json_that_exhausts_a_parser_is_a_damaged_file(file, content, copy):
    (copy / file).write_text(content, errors="surrogateescape")
    with pytest.raises(WeightsError, match=rf"{file} is damaged"):
        load(copy)


@pytest.mark.parametrize(
    "weight_map", [None, {}, [], {"a": 5}, {"a": "../outside.safetensors"}, {"a": "/x.safetensors"}]
)
def test_shards_are_files_of_the_folder(weight_map, copy):
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(copy / "outside.safetensors")
    index = weights.with_name(f"{weights.name}.index.json")
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(WeightsError, match=rf"{index.name} is damaged"):
        load(copy)


@pytest.mark.parametrize("entry", [5, True, "T5", {"a": 1}, [[]]])
def test_an_entry_of_the_index_that_is_no_pair_of_names_is_no_traceback(entry, copy):
    change(copy / "model_index.json", "_class_name", entry)
    with pytest.raises(WeightsError, match="names the pipeline"):
        load(copy)
