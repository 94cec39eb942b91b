from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sdlora.records.adoption import Adoption
from sdlora.release.model_card import front_matter, licence_metadata, render_model_card, write_model_card
from sdlora.release.record import DataSummary, caption_pattern
from sdlora.release.report import render_report
from tests.unit.evaluation.made_duel import made_duel
from tests.unit.release.made_record import FULL_DATA, made_record


def test_the_front_matter_is_yaml_that_the_hub_reads(tmp_path: Path) -> None:
    _, matter, body = write_model_card(tmp_path, made_record(tmp_path)).read_text().split("---\n", 2)
    assert yaml.safe_load(matter) == {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "license": "mit",
        "tags": ["stable-diffusion", "lora", "text-to-image", "diffusers", "sdlora"],
        "instance_prompt": "an icon of",
        "metrics": ["kid", "fid"],
    }
    assert body.lstrip().startswith("# icons, version 3\n")


def test_a_base_from_the_hub_is_linked_and_a_local_one_is_not(tmp_path: Path) -> None:
    assert front_matter(made_record(tmp_path, base_name="org/model"))["base_model"] == "org/model"
    assert "base_model" not in front_matter(made_record(tmp_path, base_name="my-folder"))


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        ({"MIT (Some Icons)": 3}, "mit"),
        ({"MIT (Some Icons)": 3, "MIT (Others)": 2}, "mit"),
        ({"Apache-2.0 (Noto)": 3}, "apache-2.0"),
        ({"MIT": 3, "Apache-2.0": 1}, "other"),
        ({"MIT": 3, "not stated": 1}, "other"),
        ({"MIT License": 3}, "mit"),
        ({"MIT-0": 3}, "other"),
        ({"MIT and CC-BY-4.0": 3}, "other"),
        ({"all rights reserved": 1}, "other"),
        ({}, "unknown"),
    ],
)
def test_the_licence_of_the_images_is_carried_through(licences: dict[str, int], expected: str) -> None:
    assert licence_metadata(licences)["license"] == expected


def test_the_card_names_every_licence_and_its_images(tmp_path: Path) -> None:
    data = replace(FULL_DATA, licences={"MIT": 3, "not stated": 1})
    card = render_model_card(made_record(tmp_path, data=data))
    assert "| MIT | 3 |" in card
    assert "| not stated | 1 |" in card
    without = render_model_card(made_record(tmp_path, data=replace(FULL_DATA, licences={})))
    assert "Settle the rights before you publish" in without


def test_scores_reasons_and_digests_are_in_the_card(tmp_path: Path) -> None:
    record = made_record(tmp_path)
    card = render_model_card(record)
    assert "| KID | 0.6912 (0.6502 to 0.7322) | 0.3391 (0.3041 to 0.3741) | 0.2714 (0.2394 to 0.3034) | lower |" in card
    assert card.count("\n- ") >= len(record.decision.reasons)
    assert f"| duel | `{record.decision.duel_digest}` |" in card


def test_a_card_without_a_champion_has_no_column_for_one(tmp_path: Path) -> None:
    card = render_model_card(made_record(tmp_path, champion=False))
    assert "| metric | base | candidate | better |\n|---|---|---|---|\n| KID" in card


def test_text_from_outside_stays_text(tmp_path: Path) -> None:
    duel = made_duel(prompts=("a `tick` <script>", "b"), folder=tmp_path / "evaluation")
    data = DataSummary(1, 1, licences={"[x](http://evil) | <b>": 1})
    card = render_model_card(made_record(tmp_path, duel=duel, data=data, name="a: *b*\n---\n"))
    assert "`` a `tick` <script> ``" in card
    assert "| \\[x\\](http://evil) \\| &lt;b&gt; | 1 |" in card
    assert "# a: \\*b\\* ---, version 3" in card


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        (["an icon of a cat", "an icon of two dogs"], "an icon of"),
        (["an icon of a cat"] * 8 + ["other words"] * 2, "an icon of a cat"),
        (["an icon of a cat"] * 7 + ["other words"] * 3, None),
        (["cat", "dog"], None),
        ([""], None),
        ([], None),
    ],
)
def test_the_pattern_is_what_most_captions_begin_with(captions: list[str], expected: str | None) -> None:
    assert caption_pattern(captions) == expected


def test_card_and_report_say_that_prior_images_were_used_and_escape_their_prompts(tmp_path):
    training = {"prior_weight": 0.5, "prior_prompts": ["a <b>dog</b>", "a cat"], "prior_images": 40}
    record = made_record(tmp_path, settings={"training": training})
    card, report = render_model_card(record), render_report(record)
    for text in (card, report):
        assert "40 images that the base model itself drew of" in text
        assert "weight 0.5 (prior preservation)" in text
        assert "<b>dog" not in text
    without = made_record(tmp_path, settings={"training": {**training, "prior_weight": None, "prior_prompts": []}})
    assert "prior preservation" not in render_model_card(without) + render_report(without)


def test_card_and_report_of_an_adopted_file_claim_nothing_about_its_training(tmp_path):
    adoption = Adoption(file="<b>x.safetensors", sha256="a" * 64, who="ann", why="[buy](http://evil)")
    record = made_record(tmp_path, adoption=adoption)
    card, report = render_model_card(record), render_report(record)
    for text in (card, report):
        assert "training images unknown" in text
        assert "its scores are too good" in text
        assert "training captions begin with" not in text
        assert "<b>x" not in text
    assert "[buy](" not in card
    assert "license: unknown" in card
    assert "MIT (Some Icons)" not in card
    assert "1392 images" not in card
    assert "instance_prompt" not in card
    assert "<b>unknown</b>" in report
