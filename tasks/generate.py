"""Drawing as a Prefect task."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from sdlora.core.files import require_writable
from tasks.drawing import Drawing, draw, find_model
from tasks.pages.run_page import drawings_page
from tasks.progress import task_progress


@task(name="generate images", persist_result=False)
def generate_images(drawing: Drawing, which: str, name: str | None, home: Path) -> list[Path]:
    """Draw with the base model, an alias or a version, into `home/generated`, and show the images on the run's page."""
    require_writable(home, "--home")  # before the model is loaded and draws
    model = find_model(which, name, home)
    paths = [image.path for image in draw(model, drawing, home / "generated", home, on_progress=task_progress())]
    create_markdown_artifact(drawings_page(model.label, drawing.prompt, paths), key="generated", description="Images")
    return paths
