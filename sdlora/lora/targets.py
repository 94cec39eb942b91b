"""Selection of the layers to adapt by name patterns, with all checks before training."""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from collections.abc import Iterable

from torch import nn

from sdlora.core.errors import TargetModuleError
from sdlora.lora.config import ResolvedLora
from sdlora.models.families.layouts import targets_of


def find_targets(model: nn.Module, config: ResolvedLora) -> dict[str, nn.Linear | nn.Conv2d]:
    """Find the layers that match the config's patterns, by full name and in the model's order.

    If `target_modules` is empty, the patterns are the family's for `targets`. A pattern is a full layer name or the end
    of a name after a dot: "to_q" matches "mid.attn1.to_q", not "auto_q". "*" matches any characters.

    Raises:
        TargetModuleError: some pattern matches no linear or convolution layer. Or the method cannot change a matched
            layer. Or the rank is above the largest rank of a matched layer.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    patterns = patterns_of(type(model).__name__, config)
    missing = [pattern for pattern in patterns if not matching_layers(layers, [pattern])]
    if missing:
        raise TargetModuleError(
            f"lora.target_modules: {', '.join(map(repr, missing))} match no layer of {type(model).__name__}. "
            f"Nearest names: {', '.join(_nearest(missing, list(layers)))}. Correct the setting; nothing was trained."
        )
    matched = {name: layers[name] for name in matching_layers(layers, patterns)}
    _check_method(matched, config)
    for name, layer in matched.items():
        if config.rank > max_rank(layer):
            raise TargetModuleError(
                f"lora.rank: {config.rank} is above the width of layer {name} ({max_rank(layer)}). "
                f"Set lora.rank to {min(map(max_rank, matched.values()))} or less, or leave the layer out of "
                "lora.target_modules; nothing was trained."
            )
    return matched


def patterns_of(denoiser_class: str, config: ResolvedLora) -> tuple[str, ...]:
    """Return the patterns of the layers to adapt: `target_modules`, else the family's for `targets`."""
    return config.target_modules or targets_of(denoiser_class, config.targets)


def matching_layers(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Return the names that match a pattern, in their order."""
    compiled = [re.compile(fnmatch.translate(f"*.{pattern}")) for pattern in patterns]
    return [name for name in names if any(pattern.match(f".{name}") for pattern in compiled)]


def _check_method(matched: dict[str, nn.Linear | nn.Conv2d], config: ResolvedLora) -> None:
    """Refuse layers for which peft would fail late, without a clear message, or with wrong results."""
    for name, layer in matched.items():
        if not isinstance(layer, nn.Conv2d):
            continue
        if config.method == "pissa":
            problem = "peft splits the weights of linear layers only"
        elif layer.groups > 1:
            problem = f"it treats its channels in {layer.groups} groups"
        else:
            continue
        raise TargetModuleError(
            f"lora.method: {config.method} cannot change layer {name}, a convolution ({type(layer).__name__}): "
            f"{problem}. Choose another lora.method, or leave the layer out of lora.target_modules "
            "(lora.targets: attention+ff has no 3x3 convolution); nothing was trained."
        )


def max_rank(layer: nn.Linear | nn.Conv2d) -> int:
    """Return the largest rank of an update of this layer: the smaller side of its weight as a matrix."""
    if isinstance(layer, nn.Linear):  # a quantised weight has another shape
        return min(layer.out_features, layer.in_features)
    rows, *columns = layer.weight.shape
    return min(rows, math.prod(columns))


def _nearest(missing: list[str], names: list[str]) -> list[str]:
    # Compare with ends of names that have as many components as the pattern, so that "to_qq" finds "to_q".
    nearest: list[str] = []
    for pattern in missing:
        depth = pattern.count(".") + 1
        ends = {".".join(name.split(".")[-depth:]) for name in names}
        nearest += difflib.get_close_matches(pattern, sorted(ends), n=3, cutoff=0.3) or sorted(ends)[:3]
    return list(dict.fromkeys(nearest))
