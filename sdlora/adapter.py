"""LoRA as one object: fine_tune() and update_parameters()."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from sdlora.core.errors import WeightsError
from sdlora.core.progress import SILENT, Listener
from sdlora.core.refs import AdapterRef, BaseModelRef
from sdlora.data.snapshot import Snapshot
from sdlora.lora.config import LoraConfig
from sdlora.lora.foreign import convert_adapter
from sdlora.lora.load import load_adapter, merge
from sdlora.lora.manifest import read_manifest
from sdlora.models.adapter_weights import merge_text_adapters
from sdlora.models.stable_diffusion import StableDiffusion
from sdlora.store.image_store import ImageStore
from sdlora.training.config import TrainingConfig
from sdlora.training.defaults import resolve_lora, resolve_training
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.identity import run_digest
from sdlora.training.job import TrainingJob


class LoRA:
    """Low-rank adapter of one base model.

    ```python
    model = StableDiffusion.from_ref(load_base_model(BaseModelConfig(), home))
    lora = LoRA(model)
    lora.fine_tune(snapshot, store, TrainingConfig(preset="small"))
    lora.update_parameters()
    model.generate_image("a noto emoji of koala, animal & nature", seed=1)
    ```
    """

    def __init__(self, model: StableDiffusion | BaseModelRef, config: LoraConfig | None = None) -> None:
        """Take the base model and the adapter's settings, without loading or training anything."""
        self.model = model if isinstance(model, StableDiffusion) else None
        self.base = model.ref if isinstance(model, StableDiffusion) else model
        self.config = config or LoraConfig()
        self.adapter: AdapterRef | None = None

    @classmethod
    def from_file(
        cls,
        model: StableDiffusion | BaseModelRef,
        file: str | PathLike[str],
        folder: str | PathLike[str],
        *,
        name: str = "adapter",
    ) -> LoRA:
        """Convert a LoRA or DoRA file of another program, such as kohya's, to an adapter in `folder`.

        The converted adapter changes every layer as the file does. Its training images are unknown.

        Raises:
            WeightsError: the file is damaged, made for another base model, or of a method that cannot be converted.
            StorageError: the disk is full or not writable.
        """
        base = model.ref if isinstance(model, StableDiffusion) else model
        adapter = convert_adapter(Path(file), base, Path(folder), name)
        lora = cls(model, read_manifest(adapter.folder).lora)
        lora.adapter = adapter
        return lora

    def fine_tune(
        self,
        snapshot: Snapshot,
        store: ImageStore,
        training: TrainingConfig | None = None,
        folder: str | PathLike[str] | None = None,
        *,
        name: str = "adapter",
        listener: Listener = SILENT,
    ) -> AdapterRef:
        """Train on a snapshot; continue an interrupted call with the same inputs. See `training.fine_tune`.

        `update_parameters` changes the model in memory; this method does not. The default folder is
        `runs/<run digest>` in the store's home.
        """
        resolved = resolve_training(training or TrainingConfig(), self.base, store.home)
        lora = resolve_lora(self.config, self.base)
        digest = run_digest(self.base.digest, snapshot.training_digest, lora, resolved, self.base.quantize)
        run_folder = Path(folder) if folder else store.home / "runs" / digest
        job = TrainingJob(self.base, snapshot, lora, resolved, run_folder, name)
        self.adapter = fine_tune(job, store, listener)
        return self.adapter

    def update_parameters(self, adapter: AdapterRef | None = None) -> StableDiffusion:
        """Take theta' = theta + delta theta: merge the trained (or the given) adapter into the model, in place.

        Raises:
            WeightsError: there is no adapter, or the adapter is damaged or belongs to another base model.
        """
        chosen = adapter or self.adapter
        if chosen is None:
            raise WeightsError("There is no adapter to merge yet: call fine_tune() or give one.")
        if self.model is None:
            self.model = StableDiffusion.from_ref(self.base)
        merge(load_adapter(self.model.denoiser, chosen, self.base))
        merge_text_adapters(self.model.text_encoders, chosen.folder)
        return self.model
