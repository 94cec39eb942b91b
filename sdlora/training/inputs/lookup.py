"""Tensors by key: from the cache, or computed and put there first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from sdlora.core.progress import OnProgress
from sdlora.models.families.base import free
from sdlora.training.inputs.tensor_cache import TensorCache

_CHUNK = 64
ONLY = ""
"""The name of the output of an encoder that has one."""

Encode = Callable[[Sequence[str]], dict[str, dict[str, Tensor]]]
"""From the keys of one chunk to the outputs of each by name; a key that cannot be encoded is left out."""


def look_up(
    cache: TensorCache,
    keys: Sequence[str],
    make_encoder: Callable[[], Encode],
    on_progress: OnProgress | None,
    stage: str,
    device: torch.device,
    outputs: Sequence[str] = (ONLY,),
) -> dict[str, dict[str, Tensor]]:
    """By key and output, from the cache; what is missing is computed first. What cannot be encoded is left out."""
    entries = {key: {name: f"{key}.{name}" if name else key for name in outputs} for key in keys}
    wanted = [entry for of_key in entries.values() for entry in of_key.values()]
    found = cache.load(wanted)
    missing = [key for key in keys if not found.keys() >= set(entries[key].values())]
    if missing:
        encode = make_encoder()
        for done, chunk in _chunks(missing):
            encoded = encode(chunk)
            if encoded:
                cache.add({entries[key][name]: tensors[name] for key, tensors in encoded.items() for name in outputs})
            if on_progress:
                on_progress(stage, done, len(missing))
        del encode
        free(device)
        # Read back, not kept from above: what is trained on is what the next run will find.
        found = cache.load(wanted)
    return {
        key: {name: found[entry] for name, entry in of_key.items()}
        for key, of_key in entries.items()
        if found.keys() >= set(of_key.values())
    }


def _chunks(keys: Sequence[str]) -> Iterable[tuple[int, Sequence[str]]]:
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        yield start + len(chunk), chunk
