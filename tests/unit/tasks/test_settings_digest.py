"""Digest of settings that decides whether a failed run is worth another try."""

from __future__ import annotations

import os
from pathlib import Path

from sdlora.config import PipelineConfig, parse_settings
from tasks.form import STYLE
from tasks.settings_digest import settings_digest


def config(**sections: object) -> PipelineConfig:
    return parse_settings({"name": "ink", **sections}, PipelineConfig, "x")


def test_the_file_and_the_flow_agree_although_the_flow_fills_in_its_defaults():
    typed = config(
        data={"sources": ["/a"]}, training={"steps": 5, "learning_rate": 1e-4}, trigger={"min_new_images": 2}
    )
    defaults = {"base_model": "embedded", "preset": "standard", "rank": None, "advanced": {}}
    of_flow = STYLE.config(**(defaults | STYLE.parameters(typed)))
    assert of_flow.model_fields_set != typed.model_fields_set
    assert settings_digest(of_flow) == settings_digest(typed)


def test_every_section_but_hours_and_triggers_counts():
    plain = settings_digest(config())
    assert settings_digest(config(trigger={"min_new_images": 3}, schedule={"cron": "0 3 * * *"})) == plain
    others = [
        config(evaluation={"steps": 5}),
        config(gate={"min_improvement": 0.5}),
        config(training={"steps": 5}),
        config(base_model={"source": "someone/base", "revision": "a" * 40}),
    ]
    assert len({plain, *map(settings_digest, others)}) == 5


def test_a_repaired_base_model_is_a_change(tmp_path: Path):
    folder = tmp_path / "base"
    (folder / "unet").mkdir(parents=True)
    weights = folder / "unet" / "weights.safetensors"
    weights.write_bytes(b"torn")
    before = settings_digest(config(base_model={"source": str(folder)}))
    assert settings_digest(config(base_model={"source": str(folder)})) == before
    weights.write_bytes(b"whole!")
    repaired = settings_digest(config(base_model={"source": str(folder)}))
    assert repaired != before
    os.utime(weights, (1, 1))  # the same size, another content
    assert settings_digest(config(base_model={"source": str(folder)})) != repaired
    single = settings_digest(config(base_model={"source": str(weights)}))
    weights.unlink()
    assert settings_digest(config(base_model={"source": str(weights)})) != single
