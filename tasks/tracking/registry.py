"""Registry of adapters: one registered model per style, one version per adapter, aliases `candidate` and `champion`.

The image database records the champion and the reason. `tasks/decisions/champion_reconciliation.py` updates the alias.

`mlflow.diffusers` stores the adapter without code or pickle. It accepts a folder of safetensors unchanged, records the
base model and provides `load_model(...).load_pipeline()`. Digests and decisions are notes in one tag of the version
(`tasks/tracking/notes.py`), separate from the few tags for people. The version is created separately from the upload,
because its tags are then set in the same transaction. A version without its digests could not be found, and the same
adapter would be registered twice.
"""

from __future__ import annotations

import filecmp
import functools
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import mlflow.diffusers
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import ColSpec

from sdlora.core.errors import WeightsError
from sdlora.core.files import link_or_copy, written_aside
from sdlora.core.refs import UNKNOWN_SNAPSHOT, AdapterRef
from sdlora.lora.manifest import check_digests
from sdlora.records.champions import ScoredVersion
from tasks.tracking.artifacts import delete_artifacts
from tasks.tracking.links import RunPage, absolute_url, version_route
from tasks.tracking.logged_models import delete_unregistered_models
from tasks.tracking.notes import NOTES_TAG, pack_notes, unpack_notes
from tasks.tracking.store import open_store, page_server
from tasks.tracking.style_page import MAX_DESCRIPTION_LENGTH
from tasks.tracking.versions import (
    ADAPTER_FOLDER,
    CANDIDATE,
    CHAMPION,
    EQUAL_RUNS,
    AdapterVersion,
    NoWholeCopyError,
    RemovedFilesError,
    version_of,
)

LAST_WITHDRAWN = "last_withdrawn_version"
REQUIREMENTS = ["diffusers", "transformers", "peft", "torch", "accelerate", "safetensors"]


class Registry:
    """Registered versions in the MLflow store of one state folder; each `name` is a style."""

    def __init__(self, home: Path) -> None:
        self.client = open_store(home)

    def names(self) -> list[str]:
        return sorted(self._models())

    def champions(self) -> dict[str, int | None]:
        """Return the version number behind the alias `champion` of each registered model; None without the alias."""
        aliases = {name: model.aliases.get(CHAMPION) for name, model in self._models().items()}
        return {name: int(number) if number is not None else None for name, number in aliases.items()}

    def _models(self) -> dict[str, RegisteredModel]:
        found: dict[str, RegisteredModel] = {}
        token = None
        while True:
            page = self.client.search_registered_models(page_token=token)
            found |= {model.name: model for model in page}
            if not (token := page.token):
                return found

    def model(self, name: str) -> RegisteredModel | None:
        """Return MLflow's record of a registered model; None if it does not exist."""
        try:
            return self.client.get_registered_model(name)
        except MlflowException as error:  # a server that cannot be reached is an error, not an empty registry
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            return None

    def versions(self, name: str) -> list[AdapterVersion]:
        """List all versions, newest first; empty if the registered model does not exist."""
        model = self.model(name)
        if model is None:
            return []
        aliases: dict[int, list[str]] = {}
        for alias, number in model.aliases.items():  # search_model_versions omits aliases
            aliases.setdefault(int(number), []).append(alias)
        rows = self.client.search_model_versions(f"name = '{name}'", max_results=1000)
        versions = [version_of(version, aliases.get(int(version.version), [])) for version in rows]
        return sorted(versions, key=lambda version: -version.number)

    def find(self, name: str, **tags: str) -> AdapterVersion | None:
        """Return the newest version with all these tags; None if there is none."""
        return next((version for version in self.versions(name) if tags.items() <= dict(version.tags).items()), None)

    def find_by_run(self, name: str, run_digest: str) -> AdapterVersion | None:
        """Return the newest version whose adapter a run gave; None if there is none."""
        return next((version for version in self.versions(name) if run_digest in version.run_digests), None)

    def get(self, name: str, version_or_alias: int | str) -> AdapterVersion | None:
        """Return a version by number or alias; None if there is none."""
        versions = self.versions(name)
        return next((version for version in versions if version_or_alias in (version.number, *version.aliases)), None)

    def holds(self, name: str, version: ScoredVersion | None) -> bool:
        """Return True if the version is registered with the same adapter, or if `version` is None."""
        if version is None:
            return True
        registered = self.get(name, version.number)
        return registered is not None and registered.tags.get("adapter_digest") == version.adapter_digest

    def number_of(self, name: str, adapter_digest: str) -> int:
        """Return the version number of an adapter, or the next free number if it is not registered."""
        versions = self.versions(name)
        number = next(
            (version.number for version in versions if version.tags.get("adapter_digest") == adapter_digest), None
        )
        model = self.model(name)
        withdrawn = int(model.tags.get(LAST_WITHDRAWN, 0)) if model else 0
        return number or max([withdrawn, *(version.number for version in versions)]) + 1

    def page_of(self, version: AdapterVersion) -> str | None:
        """Return the URL of the version's page; None without a server."""
        return absolute_url(page_server(self.client), version_route(version.name, version.number))

    def run_page(self, version: AdapterVersion) -> RunPage | None:
        """Return the page of the run that trained the version; None if the run was removed."""
        try:
            run = self.client.get_run(version.run_id) if version.run_id else None
        except MlflowException:
            return None
        if run is None:
            return None
        return RunPage(run.info.experiment_id, run.info.run_id, page_server(self.client))

    def pages_since(self, moment: datetime) -> list[str]:
        """Describe every version created at or after `moment`, with the run and the model that hold its pages."""
        versions = [version for name in self.names() for version in self.versions(name) if version.created >= moment]
        return [
            f"{version.name} version {version.number}: run {version.run_id} (report.html, data/, images/), model "
            f"{version.source.rpartition('/')[2]} (report.html, data.html, grid.png)"
            for version in versions
        ]

    def register(
        self,
        name: str,
        folder: Path,
        base_folder: Path,
        notes: Mapping[str, str],
        tags: Mapping[str, str],
        run_id: str,
    ) -> AdapterVersion:
        """Store the release folder and create a version; an adapter that is registered keeps its version.

        Call this only for a version that is not published, because its notes and tags are replaced. Models that an
        interrupted call has stored are deleted.

        Args:
            notes: notes for programs, including the digests.
            tags: tags for people.
        """
        registered = self.find(name, adapter_digest=notes["adapter_digest"])
        if registered is not None:
            self.note(registered, notes)
            for key, value in tags.items():
                self.client.set_model_version_tag(name, str(registered.number), key, value)
        else:
            info = mlflow.diffusers.log_model(
                str(folder),
                base_model=str(base_folder),
                name="adapter",
                signature=_signature(),
                pip_requirements=REQUIREMENTS,
                metadata={key: value for key, value in notes.items() if key.endswith("_digest")},
            )
            with suppress(MlflowException):  # exists if this is not the first version
                self.client.create_registered_model(name)
            self.client.create_model_version(
                name,
                source=info.model_uri,
                run_id=run_id,
                model_id=info.model_id,
                tags={**tags, NOTES_TAG: pack_notes(notes)},
            )
        delete_unregistered_models(self.client, run_id)
        version = self.find(name, adapter_digest=notes["adapter_digest"])
        assert version is not None
        self.client.set_registered_model_alias(name, CANDIDATE, str(version.number))
        return version

    def describe_version(self, version: AdapterVersion, text: str) -> None:
        """Write the description of a version, as markdown."""
        self.client.update_model_version(version.name, str(version.number), text)

    def extend_description(self, version: AdapterVersion, text: str) -> None:
        """Append a paragraph to the description of a version, unless it is there or MLflow's limit is reached."""
        description = self.client.get_model_version(version.name, str(version.number)).description or ""
        extended = f"{description}\n\n{text}"
        if text not in description and len(extended) <= MAX_DESCRIPTION_LENGTH:
            self.describe_version(version, extended)

    def head_description(self, version: AdapterVersion, text: str) -> None:
        """Put a paragraph before the description of a version, unless it is there; the last lines give way to it."""
        description = self.client.get_model_version(version.name, str(version.number)).description or ""
        if text not in description:
            lines = f"{text}\n\n{description}".splitlines()
            while len("\n".join(lines)) > MAX_DESCRIPTION_LENGTH and len(lines) > 1:
                lines.pop()
            self.describe_version(version, "\n".join(lines))

    def add_run(self, version: AdapterVersion, run_digest: str) -> None:
        """Note that a further run gave the version's adapter."""
        if run_digest not in version.run_digests:
            self.note(version, {EQUAL_RUNS: " ".join([*version.run_digests[1:], run_digest])})

    def finish(self, version: AdapterVersion) -> None:
        """Mark the version as published."""
        self.note(version, {"published": _now()})

    def withdraw(self, version: AdapterVersion) -> None:
        """Delete a version and its stored files, because its publication was refused."""
        model_id = version.source.rpartition("/")[2]
        location = self.client.get_logged_model(model_id).artifact_location
        # MLflow never gives the number again, and does not show that it was given.
        self.client.set_registered_model_tag(version.name, LAST_WITHDRAWN, str(version.number))
        self.client.delete_model_version(version.name, str(version.number))
        delete_artifacts(location, self.client.tracking_uri)
        self.client.delete_logged_model(model_id)

    def note(self, version: AdapterVersion, new_notes: Mapping[str, str]) -> None:
        """Add notes to a version, in one transaction."""
        number = str(version.number)
        notes = unpack_notes(self.client.get_model_version(version.name, number).tags)
        self.client.set_model_version_tag(version.name, number, NOTES_TAG, pack_notes({**notes, **new_notes}))

    def fetch(self, version: AdapterVersion, home: Path, *, by_digest: bool = False) -> AdapterRef:
        """Return the version's adapter: the folder of its training, else a copy downloaded from MLflow.

        Args:
            by_digest: True compares the files with their digests only, which imports no PyTorch. It is enough to know
                that an adapter is whole, not to use it.

        Raises:
            RemovedFilesError: retention removed the files.
            NoWholeCopyError: the copies in the run folder and in MLflow are damaged or missing.
            WeightsError: the adapter cannot be downloaded.
        """
        tags = version.tags
        digest = tags["adapter_digest"]
        run = home / "runs" / version.name / tags["run_digest"][:16]
        holds = _has_digest if by_digest else _holds
        folder = run / "adapter"
        if not holds(folder, digest):
            download = home / "cache" / "adapters" / digest
            folder = download / ADAPTER_FOLDER
            if not holds(folder, digest) and version.files_removed:
                raise RemovedFilesError(
                    f"{version.name} version {version.number}: {version.files_removed}. Scores, report and curves are "
                    f"kept. {version.way_back}"
                )
            if not holds(folder, digest):
                self._download(version, download)
            if not holds(folder, digest):
                raise NoWholeCopyError(
                    f"The adapter of {version.name!r} version {version.number} is damaged in MLflow"
                    f"{f' and in {run}' if run.exists() else ''}. {version.remedy(run)} Then "
                    "`sdlora doctor --deep --repair` restores the copy in MLflow."
                )
        return AdapterRef(
            folder=folder,
            digest=digest,
            base_digest=tags["base_digest"],
            snapshot_digest=version.snapshot_digest or UNKNOWN_SNAPSHOT,
            run_digest=tags["run_digest"],
        )

    def restore_release(self, version: AdapterVersion, folder: Path) -> None:
        """Write the release folder of a version again as MLflow keeps it, if the folder is missing.

        Files that the run folder's adapter has, too, become second names of them.

        A file that is damaged in MLflow stays so: adapters are compared with their digests when they are opened, and
        `sdlora doctor --deep` compares all files.

        Raises:
            OSError: the disk is full or not writable.
            WeightsError: the version cannot be downloaded.
        """
        if folder.exists():
            return
        with tempfile.TemporaryDirectory() as scratch, written_aside(folder) as partial:
            self._download(version, Path(scratch) / "model")
            take_over = functools.partial(_link_or_copy, folder.with_name("adapter"))
            shutil.copytree(Path(scratch) / "model" / ADAPTER_FOLDER, partial, copy_function=take_over)

    def _download(self, version: AdapterVersion, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            mlflow.artifacts.download_artifacts(version.source, dst_path=str(folder))
        except (MlflowException, OSError) as error:
            raise WeightsError(
                f"Version {version.number} of {version.name!r} cannot be downloaded from MLflow: {error}"
            ) from error


def _holds(folder: Path, digest: str) -> bool:
    from sdlora.lora.load import open_adapter  # imports PyTorch, which a list of versions does not need

    try:
        return open_adapter(folder).digest == digest
    except WeightsError:  # missing or damaged
        return False


def _has_digest(folder: Path, digest: str) -> bool:
    try:
        return check_digests(folder).digest == digest
    except WeightsError:
        return False


def _link_or_copy(adapter: Path, source: str, target: str) -> None:
    own = adapter / Path(source).name
    if own.is_file() and filecmp.cmp(own, source, shallow=False):
        link_or_copy(own, Path(target))
    else:
        shutil.copyfile(source, target)


def _signature() -> ModelSignature:
    """Build the signature of the stored model; MLflow's default asks for images of 512 x 512."""
    params = ParamSchema(
        [
            ParamSpec("num_inference_steps", DataType.integer, 20),
            ParamSpec("guidance_scale", DataType.double, 3.5),
            ParamSpec("negative_prompt", DataType.string, ""),
        ]
    )
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "prompt")]),
        outputs=Schema([ColSpec(DataType.binary, "image")]),
        params=params,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
