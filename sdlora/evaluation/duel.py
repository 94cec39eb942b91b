"""Duel of base, champion and candidate on the same prompts, seeds and held-out images."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from torch import Tensor

from sdlora.core.errors import EvaluationError
from sdlora.core.files import file_sha256
from sdlora.core.refs import AdapterRef
from sdlora.data.pixels import load_images_uint8
from sdlora.evaluation import neighbours
from sdlora.evaluation.contest import (
    EVALUATION_VERSION,
    Contest,
    Contestant,
    fidelity_per_image,
    load_finished,
    write_result,
)
from sdlora.evaluation.exhibits import Exhibits, write_exhibits
from sdlora.evaluation.generations import GENERATION_VERSION, Generations
from sdlora.records.duel import CONTESTANTS, DUEL_FILE, Duel, Sample, Scores, load_duel


def run_duel(contest: Contest, candidate: AdapterRef, champion: AdapterRef | None, folder: str | PathLike[str]) -> Duel:
    """Score all contestants and write `duel.json`, image grids and the shown samples into `folder`.

    `duel.json` is written last: a folder that holds it is complete. A finished duel of the same inputs is returned
    unchanged, and its damaged pictures are drawn again. Earlier generations of base and champion come from the cache.

    Raises:
        EvaluationError: too few held-out images, no training images, or an adapter made for another base model.
    """
    folder = Path(folder)
    for name, adapter in (("candidate", candidate), ("champion", champion)):
        if adapter is not None and adapter.base_digest != contest.base.digest:
            raise EvaluationError(
                f"The {name} {adapter.digest[:12]} was trained on base model {adapter.base_digest[:12]}, but this duel "
                f"is on {contest.base.digest[:12]}. Train it again on this base, or give the style another name."
            )
    contest.require_training_images()
    inputs_digest = duel_inputs_digest(contest, candidate, champion)
    stored_duel = load_finished(load_duel, folder, inputs_digest)
    if stored_duel is not None and _is_complete(stored_duel, folder):
        return stored_duel
    contestants: dict[str, Contestant] = {"base": Contestant(contest.base)}
    if champion is not None:
        contestants["champion"] = Contestant(contest.base, champion)
    contestants["candidate"] = Contestant(contest.base, candidate)
    drawn = contest.draw(contestants, contest.prompts, contest.held_out_uint8)
    scoreboard = contest.score(drawn, _reconstruction_fidelity(contest))
    similarity, nearest = neighbours.nearest(drawn["candidate"].features, contest.real_features.train)
    samples = _samples(contest, similarity, nearest)
    shown_images, files = write_exhibits(folder, _exhibits(contest, drawn, nearest.tolist(), similarity.tolist()))
    if stored_duel is not None and stored_duel.files == files:
        # Its pictures are whole again. Times that are measured again would make another duel of it.
        write_result(folder / DUEL_FILE, stored_duel)
        return stored_duel
    duel = Duel(
        inputs_digest=inputs_digest,
        evaluation_version=EVALUATION_VERSION,
        base_digest=contest.base.digest,
        snapshot_digest=contest.snapshot.digest,
        candidate_digest=candidate.digest,
        candidate_snapshot_digest=candidate.snapshot_digest,
        champion_digest=champion.digest if champion else None,
        champion_snapshot_digest=champion.snapshot_digest if champion else None,
        settings=contest.config.model_dump(mode="json"),
        scores={
            name: Scores(
                adapter_digest=contestant.adapter.digest if contestant.adapter else None,
                metrics=scoreboard.scores[name],
            )
            for name in CONTESTANTS
            if (contestant := contestants.get(name))
        },
        against_base=scoreboard.difference("candidate", "base"),
        against_champion=scoreboard.difference("candidate", "champion") if champion else {},
        held_out_copied_share=scoreboard.held_out_copies.mean().item(),
        samples=samples,
        shown=shown_images,
        files=files,
    )
    write_result(folder / DUEL_FILE, duel)
    return duel


def duel_inputs_digest(contest: Contest, candidate: AdapterRef, champion: AdapterRef | None) -> str:
    """Compute the identity of a duel: adapters, images, settings and version. A finished duel is found by it."""
    return contest.inputs_digest(
        {
            "candidate": candidate.model_dump(mode="json", exclude={"folder"}),
            "champion": champion and champion.model_dump(mode="json", exclude={"folder"}),
            "version": [EVALUATION_VERSION, GENERATION_VERSION],
        }
    )


def _is_complete(duel: Duel, folder: Path) -> bool:
    try:
        return all(file_sha256(folder / name) == digest for name, digest in duel.files.items())
    except OSError:
        return False


def _reconstruction_fidelity(contest: Contest) -> Mapping[str, Tensor]:
    """Compute metric -> (N,) of the base's autoencoder, which no adapter changes: once for all contestants."""
    return fidelity_per_image("reconstruction", contest.reconstructed_uint8, contest.held_out_uint8)


def _samples(contest: Contest, similarity: Tensor, nearest: Tensor) -> tuple[Sample, ...]:
    return tuple(
        Sample(
            held_out_sha256=prompt.row.sha256,
            prompt=prompt.text,
            seed=prompt.seed,
            nearest_training_sha256=contest.snapshot.train[index].sha256,
            nearest_similarity=cosine,
            nearly_a_copy=cosine >= contest.config.copy_similarity,
        )
        for prompt, index, cosine in zip(contest.prompts, nearest.tolist(), similarity.tolist(), strict=True)
    )


def _exhibits(
    contest: Contest, drawn: Mapping[str, Generations], nearest: list[int], similarity: list[float]
) -> Exhibits:
    count = min(contest.config.shown_prompts, len(contest.prompts))
    training = [contest.snapshot.train[index] for index in nearest[:count]]
    return Exhibits(
        captions=[prompt.text for prompt in contest.prompts[:count]],
        real=contest.held_out_uint8[:count],
        drawn={name: drawn[name].images_uint8[:count] for name in CONTESTANTS if name in drawn},
        nearest_training=load_images_uint8(contest.store, training, contest.side_px),
        similarity=similarity[:count],
    )
