"""`sdlora adopt` refuses what is no adapter before any server starts, and names the bases that a file fits."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from deployments.cli.app import app
from deployments.styles.fitting_bases import fitting_bases
from sdlora.core.errors import BaseMismatchError
from sdlora.lora.attach import attach_lora
from sdlora.lora.foreign import convert_adapter
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from tests import families
from tests.settings import filled_lora, make_style
from tests.tiny import tiny_base_model
from tests.unit.lora.perturb import perturb_adapter
from tests.unit.lora.test_files import save


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Styles of two bases, one of a base that is missing, a broken one, and a pretrained base."""
    home = tmp_path_factory.mktemp("home")
    tiny_base_model(home / "base")
    families.build("sd2", home / "bases" / "mine-1" / "model")
    for name, base in (("comics", "base"), ("ink", "base"), ("props", "bases/mine-1/model"), ("lost", "nowhere")):
        make_style(home, name, home / "images", base_model={"source": str(home / base)})
    (home / "styles" / "torn.yaml").write_text("name: [")
    return home


@pytest.fixture(scope="module")
def file(home):
    """The file of an adapter for the base of comics and ink."""
    base = load_base_model(BaseModelConfig(source=str(home / "base")), home)
    denoiser = perturb_adapter(attach_lora(parts.load_denoiser(base), filled_lora(rank=2, targets="attention")))
    adapter = save(home / "adapter", denoiser, filled_lora(rank=2, targets="attention"), base)
    return adapter.folder / "style.safetensors"


def adopt(home, style, file):
    return CliRunner().invoke(app, ["adopt", style, str(file), "--home", str(home)])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pickled.ckpt", b"\x80\x04.", "is a pickle"),
        ("cut.safetensors", None, "is damaged or no safetensors file"),
        ("text.safetensors", b"I am a LoRA, believe me.", "is damaged or no safetensors file"),
        ("missing.safetensors", ..., "There is no file"),
    ],
)
def test_a_file_that_is_no_adapter_is_refused_before_anything_starts(name, content, message, home, file, tmp_path):
    path = tmp_path / name
    if content is None:
        content = file.read_bytes()[:-5]
    if content is not ...:
        path.write_bytes(content)
    done = adopt(home, "comics", path)
    assert done.exit_code == 1
    assert message in done.output and name in done.output
    assert not any((home / folder).exists() for folder in ("prefect", "mlflow", "logs", "images.db", "runs"))


def test_a_whole_model_and_a_misspelt_style_are_refused(home, file, tmp_path):
    save_file({"model.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert "holds no adapter" in adopt(home, "comics", tmp_path / "model.safetensors").output
    assert "There is no style 'comic'" in adopt(home, "comic", file).output
    assert not (home / "prefect").exists()


def test_the_bases_that_a_file_fits_are_named_with_their_styles(home, file, tmp_path):
    base = load_base_model(BaseModelConfig(source=str(home / "bases" / "mine-1" / "model")), home)
    with pytest.raises(BaseMismatchError, match="does not fit the base model, which is"):
        convert_adapter(file, base, tmp_path / "adapter", "props")
    assert fitting_bases(file, home) == (
        f"It fits: {home / 'base'}, the base of the style comics, the base of the style ink."
    )
    odd = {name: tensor.repeat_interleave(2, -1) for name, tensor in load_file(file).items() if "lora_down" in name}
    save_file(load_file(file) | odd, tmp_path / "odd.safetensors")
    assert fitting_bases(tmp_path / "odd.safetensors", home) == "It fits no base model of this state folder."
