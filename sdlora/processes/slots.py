"""Slots of a machine for trainings, each with a device; the environment variable SDLORA_DEVICES names them."""

from __future__ import annotations

from sdlora.core.errors import ConfigError
from sdlora.core.quoting import quoted

DEVICES = "SDLORA_DEVICES"
AUTO = "auto"
"""Device of the only slot where SDLORA_DEVICES names none: the GPU if there is one, else the CPU."""


def slots_of(devices: str | None) -> tuple[str, ...]:
    """Read SDLORA_DEVICES: slots separated by commas, each `auto`, `cpu`, `cuda:N` or several GPUs as `cuda:0+cuda:1`.

    A name that is there twice gives two slots on one device.

    Raises:
        ConfigError: a slot is none of these, or some slots are `cpu` and others not.
    """
    names = [name.strip() for name in (devices or "").split(",") if name.strip()]
    for name in names:
        gpus = [part.partition(":") for part in name.split("+")]
        if name not in (AUTO, "cpu") and not all(kind == "cuda" and index.isdecimal() for kind, _, index in gpus):
            raise ConfigError(
                f"{DEVICES}: {quoted(name)} is no device. Expected auto, cpu, cuda:0, or several GPUs for one training "
                "as cuda:0+cuda:1, with commas between the slots."
            )
    if "cpu" in names and set(names) != {"cpu"}:  # PyTorch cannot hide its GPUs from one of two runs in a process
        raise ConfigError(f"{DEVICES}: cpu together with other devices. Name only cpu, or only others.")
    return tuple(names) or (AUTO,)
