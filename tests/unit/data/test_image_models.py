from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import pipeline
from typer.testing import CliRunner

from deployments.cli.app import app
from sdlora.core.errors import DataError, WeightsError
from sdlora.data.clean import clean
from sdlora.data.config import DataConfig
from sdlora.data.image_models.captioning import write_captions
from sdlora.store.image_store import ImageStore
from sdlora.store.intake import register_source, replace_captions
from sdlora.store.records import Caption
from tests.unit.data.drawing import drawing, encoded
from tests.unit.data.image_models import WORDS, blip, classifier, vision_encoder_decoder


def _filled(store: ImageStore, count: int = 6) -> list[str]:
    return [store.add_image(encoded(drawing(seed))) for seed in range(count)]


def _expected(model: Path, count: int = 6) -> list[float]:
    """As transformers' own pipeline has it."""
    judge = pipeline("image-classification", model=str(model), device="cpu")
    return [next(one["score"] for one in judge(drawing(seed)) if one["label"] == "NSFW") for seed in range(count)]


def test_images_that_a_classifier_takes_for_unsafe_are_rejected_by_its_probability(
    store: ImageStore, tmp_path: Path
) -> None:
    shas = _filled(store)
    model = classifier(tmp_path / "model")
    expected = _expected(model)
    threshold = sum(expected) / len(expected)
    assert max(expected) - min(expected) > 0.1
    config = DataConfig(unsafe_model=str(model), unsafe_threshold=threshold)
    assert clean(store, config).counts.pending == 0
    for sha256, probability in zip(shas, expected, strict=True):
        image = store.image(sha256)
        assert (image.rejected_by == "unsafe") == (probability >= threshold)
        if image.rejected_by:
            assert f"unsafe content (nsfw) with probability {probability:.2f}" in image.reason

    shutil.rmtree(store.home / "blobs")  # no image is looked at from here on
    assert clean(store, config).decided == 0
    assert clean(store, config.model_copy(update={"unsafe_threshold": 1.0})).counts.accepted == 6
    assert clean(store, DataConfig()).counts.accepted == 6


def test_another_model_in_the_same_folder_scores_anew(store: ImageStore, tmp_path: Path) -> None:
    _filled(store, 3)
    config = DataConfig(unsafe_model=str(classifier(tmp_path / "model")), unsafe_threshold=0.0)
    first = clean(store, config)
    assert first.counts.rejected_by == {"unsafe": 3}
    before = {image.reason for image in store.images()}
    classifier(tmp_path / "model", seed=1)
    second = clean(store, config)
    assert (second.decided, second.decoded) == (3, 0)
    assert {image.reason for image in store.images()} != before


def test_wrong_models_are_told_by_setting_and_remedy(store: ImageStore, tmp_path: Path) -> None:
    _filled(store, 1)
    with pytest.raises(DataError, match=r"data\.unsafe_model: 'nowhere' is neither a folder nor a hub id"):
        clean(store, DataConfig(unsafe_model="nowhere"))
    model = classifier(tmp_path / "model")
    with pytest.raises(DataError, match=r"data\.unsafe_labels: .* has no label porn; it has nsfw, safe"):
        clean(store, DataConfig(unsafe_model=str(model), unsafe_labels=("porn",)))
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"data\.unsafe_model: .* has no \.safetensors file"):
        clean(store, DataConfig(unsafe_model=str(model)))
    with pytest.raises(DataError, match=r"data\.caption_model is not set"):
        write_captions(store, DataConfig())
    clean(store, DataConfig())
    with pytest.raises(WeightsError, match=r"data\.caption_model: .* has no usable AutoTokenizer"):
        write_captions(store, DataConfig(caption_model=str(classifier(tmp_path / "other"))))


@pytest.mark.parametrize("make", [blip, vision_encoder_decoder])
def test_a_model_captions_what_nobody_has(store: ImageStore, tmp_path: Path, make: object) -> None:
    bare, named, told, rejected = [*_filled(store, 3), store.add_image(encoded(drawing(9, side_px=8)))]
    store.set_captions(told, ["said by a person"])
    with store.write() as session:
        source = register_source(session, "folder", "folder")
        replace_captions(session, source, {named: [Caption("img 0001", "file_name")]})
    config = DataConfig(caption_model=str(make(tmp_path / "model")))
    clean(store, config)
    written = write_captions(store, config)
    assert set(written) <= {bare, named}
    assert written
    for sha256, text in written.items():
        assert store.image(sha256).captions == (text,)
        assert set(text.split()) <= set(WORDS)
    assert store.image(told).captions == ("said by a person",)
    assert store.image(rejected).captions == ()
    assert clean(store, config).decoded == 0
    assert set(write_captions(store, config)).isdisjoint(written)


def test_missing_captions_are_written_by_a_command(store: ImageStore, tmp_path: Path) -> None:
    _filled(store, 2)
    clean(store, DataConfig())
    config = tmp_path / "own.yaml"
    config.write_text(f"name: own\ndata: {{caption_model: {blip(tmp_path / 'model')}}}\n")
    arguments = ["images", "caption", "--auto", "--config", str(config), "--home", str(store.home)]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "2 images have a caption by the model now" in shown.output
    assert all(image.captions for image in store.images())
