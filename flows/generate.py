"""Flow `generate`: images drawn with any version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from sdlora.core.config_base import MAX_GUIDANCE_SCALE, MAX_SEED
from tasks.alive import flow_run_alive
from tasks.drawing import Drawing
from tasks.generate import generate_images
from tasks.home import Home, state_folder
from tasks.lock import CLEAN_UP_SECONDS, run_lock
from tasks.notify.failures import tell_failure
from tasks.pages.run_names import starting_name


@flow(
    name="generate",
    flow_run_name=starting_name,
    persist_result=False,
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
)
def generate(
    prompt: Annotated[str, Field(min_length=1)],
    which: str = "champion",
    name: str | None = None,
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0,
    count: Annotated[int, Field(ge=1, le=64)] = 4,
    steps: Annotated[int, Field(ge=1, le=200)] = 20,
    guidance_scale: Annotated[float, Field(ge=1, le=MAX_GUIDANCE_SCALE)] = 4.0,
    negative_prompt: str = "",
    home: Home = None,
) -> list[Path]:
    """Draw images and remember them in the image database.

    Args:
        prompt: What to draw, in words.
        which: champion, candidate, base, or a version's number.
        name: The style; may be left out if there is only one.
        seed: The same seed draws the same image; several images count up from it.
        count: How many images.
        steps: Sampler steps.
        guidance_scale: How strictly to follow the prompt.
        negative_prompt: What to keep away from.
        home: The state folder; empty: the worker's.
    """
    home = state_folder(home)
    drawing = Drawing(prompt, seed, count, steps, guidance_scale, negative_prompt)
    with flow_run_alive(home), run_lock(home, CLEAN_UP_SECONDS):
        return generate_images(drawing, which, name, home)
