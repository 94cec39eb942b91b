"""Stage 8: the champion's file in the folder of a drawing tool."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact
from pydantic import ValidationError

from sdlora.config import ResolvedConfig
from sdlora.core.errors import SdloraError
from sdlora.records.export import (
    ExportRecord,
    export_settings,
    forget_export,
    write_export_record,
    write_export_settings,
)
from sdlora.release.config import ExportConfig
from sdlora.store.image_store import ImageStore
from tasks.decisions.champion_reconciliation import reconcile_history
from tasks.drawing import find_model
from tasks.pages.markdown import markdown_text
from tasks.results import Release
from tasks.retries import RETRIED
from tasks.run_log import run_log
from tasks.tracking import AdapterVersion, Registry


@task(name="export champion", persist_result=False, **RETRIED)
def export_champion(release: Release, config: ResolvedConfig, home: Path) -> Release:
    """Write the champion to `export.on_promote`, unless it is there, and add the outcome to the release.

    Every run looks, so the file also follows a champion that a person has chosen in MLflow. A folder that cannot be
    written is a warning, because the version is published already.
    """
    if config.export.on_promote is None:
        forget_export(home, config.name)
        return release
    write_export_settings(home, config.name, config.export.model_dump(mode="json"))
    record = _export_current(config.name, config.export, home)
    if record and record.problem:
        create_markdown_artifact(
            f"**{markdown_text(config.name)} version {record.version} was not exported.** "
            f"{markdown_text(record.problem)}",
            key="export",
            description=f"Not exported: {config.name} version {record.version}",
        )
    return release.model_copy(update={"export": record}) if record else release


def export_again(name: str, home: Path) -> ExportRecord | None:
    """Write the champion as the style's last run would; None if that run exported nothing or there is no champion."""
    try:
        config = ExportConfig.model_validate(export_settings(home, name) or {})
    except ValidationError:  # damaged by hand; the next run writes it again
        return None
    return _export_current(name, config, home) if config.on_promote else None


def _export_current(name: str, config: ExportConfig, home: Path) -> ExportRecord | None:
    registry = Registry(home)
    with ImageStore.open(home) as store:
        history = reconcile_history(registry, store, name)
    version = registry.get(name, history.champion.number) if history.champion else None
    if version is None:
        run_log().info("%s has no champion, so nothing is exported", name)
        return None
    record = _export(version, config, home)
    write_export_record(home, record)
    if record.problem:
        run_log().warning("Not exported: %s", record.problem)
    return record


def _export(version: AdapterVersion, config: ExportConfig, home: Path) -> ExportRecord:
    from sdlora.lora.formats.compatibility import misreadings_of
    from sdlora.release.lora_folder import Champion, exported_file
    from sdlora.release.lora_folder import export_champion as write_champion

    folder = Path(config.on_promote or "")
    record = ExportRecord(
        style=version.name,
        file=exported_file(folder, version.name),
        version=version.number,
        adapter_digest=version.tags["adapter_digest"],
    )
    try:
        model = find_model(str(version.number), version.name, home)
        assert model.adapter is not None
        champion = Champion(version.name, version.number, model.adapter, model.base)
        if write_champion(champion, folder, config):
            run_log().info("Exported version %d to %s", version.number, record.file)
            for note in misreadings_of(model.adapter.folder, record.file, config.reader):
                run_log().warning("%s", note)
    except SdloraError as error:
        return record.model_copy(update={"problem": str(error)})
    return record
