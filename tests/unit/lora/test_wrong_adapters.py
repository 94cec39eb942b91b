"""An adapter that is wrong is refused wherever it is used, even if every digest is right."""

from __future__ import annotations

import shutil

import pytest
from typer.testing import CliRunner

from deployments.cli.app import app
from sdlora.adapter import LoRA
from sdlora.core.errors import WeightsError
from sdlora.core.refs import AdapterRef
from sdlora.lora.attach import attach_lora
from sdlora.lora.check import check_weights
from sdlora.lora.load import open_adapter
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.release.exporting import export_adapter, export_model
from tests.settings import filled_lora
from tests.unit.lora import forged
from tests.unit.lora.forged import Forgery
from tests.unit.lora.perturb import perturb_adapter
from tests.unit.lora.test_files import save


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    return load_base_model(BaseModelConfig(), tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def adapter(embedded, tmp_path_factory):
    config = filled_lora(rank=2, targets="attention")
    denoiser = perturb_adapter(attach_lora(parts.load_denoiser(embedded), config), scale=0.1)
    return save(tmp_path_factory.mktemp("adapter") / "adapter", denoiser, config, embedded)


@pytest.fixture
def forge(adapter, tmp_path):
    def forge(way):
        folder = shutil.copytree(adapter.folder, tmp_path / "adapter")
        forgery = Forgery(folder)
        way(forgery)
        forgery.write()
        fields = {name: forgery.manifest[name] for name in AdapterRef.model_fields if name != "folder"}
        return AdapterRef(folder=folder, **fields)

    return forge


def named(ways):
    return pytest.mark.parametrize("way", ways, ids=lambda way: way.__name__)


@named([*forged.WRONG_FOR_ALL, *forged.WRONG_FOR_OTHER_TOOLS])
def test_it_is_neither_opened_nor_exported_and_inspect_says_what_is_wrong(way, forge, embedded, tmp_path):
    wrong = forge(way)
    for use in (
        lambda: open_adapter(wrong.folder, embedded),
        lambda: export_adapter(wrong, tmp_path / "out.safetensors", base=embedded),
        lambda: export_adapter(wrong, tmp_path / "out", base=embedded),
    ):
        with pytest.raises(WeightsError, match=str(wrong.folder)):
            use()
    assert not list(tmp_path.glob("*out*"))
    shown = CliRunner().invoke(app, ["inspect", str(wrong.folder)])
    assert shown.exit_code == 1
    assert ("Problem: " in shown.output) != ("Error: " in shown.output)


@named(forged.WRONG_FOR_ALL)
def test_nothing_is_drawn_trained_or_merged_with_it(way, forge, embedded, tmp_path):
    wrong = forge(way)
    for use in (
        lambda: check_weights(wrong, embedded),
        lambda: LoRA(embedded).update_parameters(wrong),
    ):
        with pytest.raises(WeightsError, match=str(wrong.folder)):
            use()


@named(forged.WRONG_BY_ITSELF)
def test_a_file_that_is_wrong_by_itself_is_not_merged_into_a_model(way, forge, embedded, tmp_path):
    with pytest.raises(WeightsError):
        export_model(embedded, forge(way), tmp_path / "merged")


def test_the_adapter_that_all_of_these_were_made_of_is_right(adapter, forge, embedded, tmp_path):
    untouched = forge(lambda _: None)
    assert untouched == adapter.model_copy(update={"folder": untouched.folder})
    assert open_adapter(untouched.folder, embedded) == untouched
    assert export_adapter(untouched, tmp_path / "out.safetensors", base=embedded).is_file()
    check_weights(untouched, embedded)
    assert CliRunner().invoke(app, ["inspect", str(untouched.folder)]).exit_code == 0
