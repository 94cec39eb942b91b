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
from sdlora.store.captions import replace_captions
from sdlora.store.dataset import Dataset
from sdlora.store.intake import register_source
from sdlora.store.queries import find_member
from sdlora.store.records import Caption
from tests.unit.data.drawing import drawing, encoded
from tests.unit.data.image_models import WORDS, blip, classifier, vision_encoder_decoder


def _filled(dataset: Dataset, count: int = 6) -> list[str]:
    return [dataset.add_image(encoded(drawing(seed))) for seed in range(count)]


def _expected(model: Path, count: int = 6) -> list[float]:
    """As transformers' own pipeline has it."""
    judge = pipeline("image-classification", model=str(model), device="cpu")
    return [next(one["score"] for one in judge(drawing(seed)) if one["label"] == "NSFW") for seed in range(count)]


def test_images_that_a_classifier_takes_for_unsafe_are_rejected_by_its_probability(
    dataset: Dataset, tmp_path: Path
) -> None:
    shas = _filled(dataset)
    model = classifier(tmp_path / "model")
    expected = _expected(model)
    threshold = sum(expected) / len(expected)
    assert max(expected) - min(expected) > 0.1
    config = DataConfig(unsafe_model=str(model), unsafe_threshold=threshold)
    assert clean(dataset, config).counts.pending == 0
    for sha256, probability in zip(shas, expected, strict=True):
        image = dataset.image(sha256)
        assert (image.rejected_by == "unsafe") == (probability >= threshold)
        if image.rejected_by:
            assert f"unsafe content (nsfw) with probability {probability:.2f}" in image.reason

    shutil.rmtree(dataset.store.home / "blobs")  # no image is looked at from here on
    assert clean(dataset, config).decided == 0
    assert clean(dataset, config.model_copy(update={"unsafe_threshold": 1.0})).counts.accepted == 6
    assert clean(dataset, DataConfig()).counts.accepted == 6


def test_another_model_in_the_same_folder_scores_anew(dataset: Dataset, tmp_path: Path) -> None:
    _filled(dataset, 3)
    config = DataConfig(unsafe_model=str(classifier(tmp_path / "model")), unsafe_threshold=0.0)
    first = clean(dataset, config)
    assert first.counts.rejected_by == {"unsafe": 3}
    before = {image.reason for image in dataset.images()}
    classifier(tmp_path / "model", seed=1)
    second = clean(dataset, config)
    assert (second.decided, second.decoded) == (3, 0)
    assert {image.reason for image in dataset.images()} != before


def test_wrong_models_are_told_by_setting_and_remedy(dataset: Dataset, tmp_path: Path) -> None:
    _filled(dataset, 1)
    with pytest.raises(DataError, match=r"data\.unsafe_model: 'nowhere' is neither a folder nor a hub id"):
        clean(dataset, DataConfig(unsafe_model="nowhere"))
    model = classifier(tmp_path / "model")
    with pytest.raises(DataError, match=r"data\.unsafe_labels: .* has no label porn; it has nsfw, safe"):
        clean(dataset, DataConfig(unsafe_model=str(model), unsafe_labels=("porn",)))
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"data\.unsafe_model: .* has no \.safetensors file"):
        clean(dataset, DataConfig(unsafe_model=str(model)))
    with pytest.raises(DataError, match=r"data\.caption_model is not set"):
        write_captions(dataset, DataConfig())
    clean(dataset, DataConfig())
    with pytest.raises(WeightsError, match=r"data\.caption_model: .* has no usable AutoTokenizer"):
        write_captions(dataset, DataConfig(caption_model=str(classifier(tmp_path / "other"))))


@pytest.mark.parametrize("make", [blip, vision_encoder_decoder])
def test_a_model_captions_what_nobody_has(dataset: Dataset, tmp_path: Path, make: object) -> None:
    bare, named, told, rejected = [*_filled(dataset, 3), dataset.add_image(encoded(drawing(9, side_px=8)))]
    dataset.set_captions(told, ["said by a person"])
    with dataset.store.write() as session:
        source = register_source(session, dataset.id, "folder", "folder")
        member_id = find_member(session, dataset.id, named)
        replace_captions(session, source, {member_id: [Caption("img 0001", "file_name")]})
    config = DataConfig(caption_model=str(make(tmp_path / "model")))
    clean(dataset, config)
    written = write_captions(dataset, config)
    assert set(written) <= {bare, named}
    assert written
    for sha256, text in written.items():
        assert dataset.image(sha256).captions == (text,)
        assert set(text.split()) <= set(WORDS)
    assert dataset.image(told).captions == ("said by a person",)
    assert dataset.image(rejected).captions == ()
    assert clean(dataset, config).decoded == 0
    assert set(write_captions(dataset, config)).isdisjoint(written)


def test_missing_captions_are_written_by_a_command(dataset: Dataset, tmp_path: Path) -> None:
    _filled(dataset, 2)
    clean(dataset, DataConfig())
    config = tmp_path / "own.yaml"
    config.write_text(f"name: own\ndata: {{caption_model: {blip(tmp_path / 'model')}}}\n")
    arguments = ["images", "caption", "--auto", "--config", str(config), "--home", str(dataset.store.home)]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "2 images have a caption by the model now" in shown.output
    assert all(image.captions for image in dataset.images())
