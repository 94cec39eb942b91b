"""The duel: base, champion and candidate on the same prompts, seeds and held-out images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from sdlora.core.errors import EvaluationError
from sdlora.core.files import file_sha256, json_digest, replace_file
from sdlora.core.progress import OnProgress
from sdlora.core.refs import AdapterRef, BaseModelRef
from sdlora.data.pixels import load_images_uint8
from sdlora.data.snapshot import Snapshot, SnapshotRow
from sdlora.evaluation import neighbours
from sdlora.evaluation.config import EvaluationConfig
from sdlora.evaluation.exhibits import Exhibits, write_exhibits
from sdlora.evaluation.fidelity import psnr_per_image, reconstruct, ssim_per_image
from sdlora.evaluation.generations import GENERATION_VERSION, Generations, generations
from sdlora.evaluation.prompts import Prompt, choose_prompts
from sdlora.evaluation.scoring import Measured, RealFeatures, Scoreboard
from sdlora.evaluation.tensor_cache import cached_tensors
from sdlora.models import parts
from sdlora.models.features import ImageFeatures
from sdlora.models.stable_diffusion import StableDiffusion
from sdlora.records.duel import DUEL_FILE, Contestant, Duel, Sample, Scores, load_duel
from sdlora.store.image_store import ImageStore

EVALUATION_VERSION = 1  # raise it when the same images give other numbers


def run_duel(
    base: BaseModelRef,
    candidate: AdapterRef,
    champion: AdapterRef | None,
    snapshot: Snapshot,
    store: ImageStore,
    config: EvaluationConfig,
    folder: Path,
    *,
    on_progress: OnProgress | None = None,
) -> Duel:
    """Score all contestants and write `duel.json`, image grids and the shown samples into `folder`.

    `duel.json` is written last: a folder that holds it is complete. A finished duel on the same inputs is
    returned as it is; what base and champion drew before comes from `store.home/cache/generations`.

    Raises:
        EvaluationError: too few held-out images, no training images, or an adapter made for another base model.
    """
    for name, adapter in (("candidate", candidate), ("champion", champion)):
        if adapter is not None and adapter.base_digest != base.digest:
            raise EvaluationError(
                f"The {name} {adapter.digest[:12]} was trained on base model {adapter.base_digest[:12]}, this duel is "
                f"on {base.digest[:12]}. Train it again on this base, or start a line of its own under another name."
            )
    prompts = choose_prompts(snapshot.held_out, config)
    if not snapshot.train:
        raise EvaluationError("The snapshot has no training images, so copies of them cannot be looked for.")
    inputs_digest = json_digest(
        {
            "base": base.digest,
            "candidate": candidate.model_dump(mode="json", exclude={"folder"}),
            "champion": champion and champion.model_dump(mode="json", exclude={"folder"}),
            "snapshot": snapshot.digest,
            "config": config.model_dump(mode="json"),
            "version": [EVALUATION_VERSION, GENERATION_VERSION],
        }
    )
    finished = _finished_duel(folder, inputs_digest)
    if finished is not None:
        return finished
    duel = _Duel(base, candidate, champion, snapshot, store, config, prompts, on_progress or _silent)
    return duel.fight(folder, inputs_digest)


def _finished_duel(folder: Path, inputs_digest: str) -> Duel | None:
    try:
        duel = load_duel(folder)
        whole = all(file_sha256(folder / name) == digest for name, digest in duel.files.items())
    except (EvaluationError, OSError):
        return None
    return duel if whole and duel.inputs_digest == inputs_digest else None


@dataclass(frozen=True)
class _Duel:
    base: BaseModelRef
    candidate: AdapterRef
    champion: AdapterRef | None
    snapshot: Snapshot
    store: ImageStore
    config: EvaluationConfig
    prompts: tuple[Prompt, ...]
    on_progress: OnProgress

    @cached_property
    def side_px(self) -> int:
        """Real images are shown and scored at the size that the base model draws."""
        return parts.native_resolution(self.base)

    @property
    def adapters(self) -> dict[Contestant, AdapterRef | None]:
        present: dict[Contestant, AdapterRef | None] = {"base": None}
        if self.champion is not None:
            present["champion"] = self.champion
        return {**present, "candidate": self.candidate}

    def fight(self, folder: Path, inputs_digest: str) -> Duel:
        held_out_rows = [prompt.row for prompt in self.prompts]
        held_out = load_images_uint8(self.store, held_out_rows, self.side_px)  # (N, 3, S, S)
        drawn = {name: self._draw(name, held_out) for name in self.adapters}
        real = RealFeatures(
            held_out=self._features(held_out_rows, "features of held-out images"),
            held_out_captions=[row.captions for row in held_out_rows],
            train=self._features(self.snapshot.train, "features of training images"),
            train_captions=[row.captions for row in self.snapshot.train],
        )
        ceiling = _fidelity("reconstruction", self._reconstructed(held_out), held_out)
        board = Scoreboard([prompt.text for prompt in self.prompts], real, self.config)
        scores: dict[Contestant, Scores] = {}
        for done, (name, made) in enumerate(drawn.items(), start=1):
            restored = _fidelity("denoising", made.denoised_uint8, held_out)
            metrics = board.score(name, Measured(made.features, made.batch_seconds, {**restored, **ceiling}))
            adapter = self.adapters[name]
            scores[name] = Scores(adapter_digest=adapter.digest if adapter else None, metrics=metrics)
            self.on_progress("score", done, len(drawn))
        similarity, nearest = neighbours.nearest(drawn["candidate"].features, real.train)
        exhibits = self._exhibits(held_out, drawn, nearest.tolist(), similarity.tolist())
        shown, files = write_exhibits(folder, exhibits)
        duel = Duel(
            inputs_digest=inputs_digest,
            evaluation_version=EVALUATION_VERSION,
            base_digest=self.base.digest,
            snapshot_digest=self.snapshot.digest,
            candidate_digest=self.candidate.digest,
            candidate_snapshot_digest=self.candidate.snapshot_digest,
            champion_digest=self.champion.digest if self.champion else None,
            champion_snapshot_digest=self.champion.snapshot_digest if self.champion else None,
            settings=self.config.model_dump(mode="json"),
            scores=scores,
            against_base=board.difference("candidate", "base"),
            against_champion=board.difference("candidate", "champion") if self.champion else {},
            held_out_copied_share=board.held_out_copies.mean().item(),
            samples=tuple(
                Sample(
                    held_out_sha256=prompt.row.sha256,
                    prompt=prompt.text,
                    seed=prompt.seed,
                    nearest_training_sha256=self.snapshot.train[index].sha256,
                    nearest_similarity=likeness,
                    nearly_a_copy=likeness >= self.config.copy_similarity,
                )
                for prompt, index, likeness in zip(self.prompts, nearest.tolist(), similarity.tolist(), strict=True)
            ),
            shown=shown,
            files=files,
        )
        replace_file(folder / DUEL_FILE, json.dumps(duel.model_dump(mode="json"), indent=1).encode())
        return duel

    def _draw(self, name: Contestant, held_out: Tensor) -> Generations:
        adapter = self.adapters[name]
        return generations(
            lambda: StableDiffusion.from_ref(self.base, adapter),
            f"{self.base.digest}/{adapter.digest if adapter else ''}",
            self.prompts,
            held_out,
            self.config,
            self.store.home,
            lambda done: self.on_progress(f"draw with the {name}", done, len(self.prompts)),
        )

    def _features(self, rows: Sequence[SnapshotRow], stage: str) -> Tensor:
        """(len(rows), D) features of real images, kept by the images' digests."""
        key = json_digest({"images": [row.sha256 for row in rows], "side": self.side_px, "version": EVALUATION_VERSION})

        def extract() -> dict[str, Tensor]:
            network, batches = ImageFeatures(), []
            for start in range(0, len(rows), 32):
                batch = rows[start : start + 32]
                batches.append(network(load_images_uint8(self.store, batch, self.side_px)))
                self.on_progress(stage, start + len(batch), len(rows))
            return {"features": torch.cat(batches)}

        return cached_tensors(self.store.home / "cache" / "features" / f"{key}.safetensors", extract)["features"]

    def _reconstructed(self, held_out: Tensor) -> Tensor:
        """The base's autoencoder alone; adapters leave it untouched, so one measurement holds for all."""
        images = [prompt.row.sha256 for prompt in self.prompts]
        key = json_digest({"base": self.base.digest, "images": images, "side": self.side_px})

        def compute() -> dict[str, Tensor]:
            return {"images_uint8": reconstruct(StableDiffusion.from_ref(self.base), held_out)}

        path = self.store.home / "cache" / "reconstructions" / f"{key}.safetensors"
        return cached_tensors(path, compute)["images_uint8"]

    def _exhibits(
        self, held_out: Tensor, drawn: Mapping[Contestant, Generations], nearest: list[int], similarity: list[float]
    ) -> Exhibits:
        count = min(self.config.shown_prompts, len(self.prompts))
        training = [self.snapshot.train[index] for index in nearest[:count]]
        return Exhibits(
            captions=[prompt.text for prompt in self.prompts[:count]],
            real=held_out[:count],
            drawn={name: made.images_uint8[:count] for name, made in drawn.items()},
            nearest_training=load_images_uint8(self.store, training, self.side_px),
            similarity=similarity[:count],
        )


def _fidelity(name: str, images_uint8: Tensor, originals_uint8: Tensor) -> dict[str, Tensor]:
    return {
        f"{name}_psnr": psnr_per_image(images_uint8, originals_uint8),
        f"{name}_ssim": ssim_per_image(images_uint8, originals_uint8),
    }


def _silent(stage: str, done: int, total: int) -> None:
    """Progress for callers that do not watch."""
