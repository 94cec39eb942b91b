"""Flow `adopt`, from a file that was made elsewhere to a published adapter."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from sdlora.training.config import Preset
from tasks.adopt import convert_file, identify_file, with_settings_of
from tasks.alive import flow_run_alive
from tasks.base import prepare_base_model
from tasks.collect import clean_images, collect_images
from tasks.decisions.question import ask_person
from tasks.evaluate import decide, find_champion, run_duel
from tasks.export import export_champion
from tasks.form import STYLE, Advanced, Count, LearningRate, Name
from tasks.home import Home, state_folder
from tasks.identify import find_adopted
from tasks.lock import CLEAN_UP_SECONDS, run_lock
from tasks.notify.decisions import notify_decisions
from tasks.pages.run_names import starting_name
from tasks.publish import publish
from tasks.results import Release
from tasks.settings import resolve_settings
from tasks.snapshot import make_snapshot
from tasks.waiting.queue import join_queue, training_slot


# No message tells of a failure, because the person who typed the command sees it.
@flow(name="adopt", flow_run_name=starting_name, persist_result=False, validate_parameters=True)
def adopt(
    file: Path,
    who: str = "somebody",
    why: str = "",
    name: Name = "style",
    sources: tuple[str, ...] = (),
    base_model: str = "embedded",
    preset: Preset = "standard",
    steps: Count = None,
    learning_rate: LearningRate = None,
    rank: Count = None,
    force: bool = False,
    advanced: Advanced = {},  # noqa: B006  # never changed; see the flow `retrain`
    home: Home = None,
) -> Release:
    """Convert an adapter file, and let it fight for the style like an adapter that was trained here.

    No deployment offers this flow, because a form would let its users read any file of the worker. Settings of the
    training have no effect: the file has been trained.

    Args:
        file: The `.safetensors` file.
        who: Person who adopts it.
        why: Reason of this person.
        name: The style; this and the following parameters are those of the flow `retrain`.
    """
    home = state_folder(home)
    config = STYLE.config(
        advanced,
        name=name,
        sources=sources,
        base_model=base_model,
        preset=preset,
        steps=steps,
        learning_rate=learning_rate,
        rank=rank,
    )
    with flow_run_alive(home), run_lock(home, CLEAN_UP_SECONDS):
        base = prepare_base_model(config.base_model, home)
        settings = resolve_settings(config, base, home)

        run = identify_file(file, base, settings.name, home)
        release = find_adopted(run, settings.name, home)
        if release is None or force:
            candidate = convert_file(file, base, settings, run, who, why)
            settings = with_settings_of(candidate, settings)

            collected = collect_images(settings.data, home)
            cleaned = clean_images(collected, settings.data, home)
            snapshot = make_snapshot(cleaned, settings.data, home)
            with training_slot(join_queue(settings.name, "adopt", home), home):
                # The same file may have been adopted between the first look and the queue.
                release = None if force else find_adopted(run, settings.name, home)
                if release is None:
                    champion = find_champion(settings.name, base, run, home)
                    duel = run_duel(base, candidate, champion, snapshot, settings, run, home)
                    decision = decide(duel, settings.gate)
                    release = publish(base, candidate, snapshot, duel, decision, settings, run, home)
        release = ask_person(export_champion(release, settings, home), home)
        notify_decisions(release, home)
        return release
