"""Flow `collect`: new images of a dataset and their verdicts, without training."""

from __future__ import annotations

from prefect import flow

from sdlora.data.clean import CleanReport
from sdlora.data.config import resolve_data
from tasks.alive import flow_run_alive
from tasks.collect import clean_images, collect_images
from tasks.form import STYLE, Advanced, Name
from tasks.home import Home, state_folder
from tasks.lock import CLEAN_UP_SECONDS, run_lock
from tasks.notify.failures import tell_failure
from tasks.pages.run_names import starting_name


@flow(
    name="collect",
    flow_run_name=starting_name,
    persist_result=False,
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
)
def collect(
    dataset: Name = "style",
    sources: tuple[str, ...] = (),
    advanced: Advanced = {},  # noqa: B006  # never changed; Prefect's form shows it as an empty object
    home: Home = None,
) -> CleanReport:
    """Collect every source of the settings into a dataset and judge the new images; known images cost nothing.

    Args:
        dataset: Dataset that the images join; by default it has the name of its style.
        sources: Folders, archives, lists of URLs, datasets, addresses such as s3://bucket/folder.
        advanced: All other settings, by section and key as in a style's file; those under data count here.
        home: The state folder; empty: the worker's.
    """
    home = state_folder(home)
    config = STYLE.config(advanced, name=dataset, sources=sources)
    data = resolve_data(config.data, config.name)
    with flow_run_alive(home), run_lock(home, CLEAN_UP_SECONDS):
        collected = collect_images(data, home)
        return clean_images(collected, data, home)
