"""Stage 8: the champion's file in the folder of a drawing tool."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from sdlora.config import ResolvedConfig
from sdlora.core.errors import SdloraError
from sdlora.records.export import ExportRecord, forget_export, write_export_record
from sdlora.store.image_store import ImageStore
from tasks.champion_reconciliation import reconcile_history
from tasks.drawing import find_model
from tasks.markdown import markdown_text
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
    name = config.name
    if config.export.on_promote is None:
        forget_export(home, name)
        return release
    registry = Registry(home)
    with ImageStore.open(home) as store:
        history = reconcile_history(registry, store, name)
    version = registry.get(name, history.champion.number) if history.champion else None
    if version is None:
        run_log().info("%s has no champion, so nothing is exported", name)
        return release
    record = _export(version, config, home)
    write_export_record(home, record)
    if record.problem:
        run_log().warning("Not exported: %s", record.problem)
        create_markdown_artifact(
            f"**{markdown_text(name)} version {record.version} was not exported.** {markdown_text(record.problem)}",
            key="export",
            description=f"Not exported: {name} version {record.version}",
        )
    return release.model_copy(update={"export": record})


def _export(version: AdapterVersion, config: ResolvedConfig, home: Path) -> ExportRecord:
    from sdlora.lora.formats.compatibility import misreadings_of
    from sdlora.release.lora_folder import Champion, exported_file
    from sdlora.release.lora_folder import export_champion as write_champion

    folder = Path(config.export.on_promote or "")
    record = ExportRecord(
        style=config.name,
        file=exported_file(folder, config.name),
        version=version.number,
        adapter_digest=version.tags["adapter_digest"],
    )
    try:
        model = find_model(str(version.number), config.name, home)
        assert model.adapter is not None
        champion = Champion(config.name, version.number, model.adapter, model.base)
        if write_champion(champion, folder, config.export):
            run_log().info("Exported version %d to %s", version.number, record.file)
            for note in misreadings_of(model.adapter.folder, record.file, config.export.reader):
                run_log().warning("%s", note)
    except SdloraError as error:
        return record.model_copy(update={"problem": str(error)})
    return record
