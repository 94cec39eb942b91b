"""SDLORA_DEVICES names the slots of a machine."""

from __future__ import annotations

import pytest

from sdlora.core.errors import ConfigError
from sdlora.processes.slots import slots_of


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        (None, ("auto",)),
        (" , ", ("auto",)),
        ("cpu", ("cpu",)),
        ("cuda:1, cuda:0", ("cuda:1", "cuda:0")),
        ("cuda:0+cuda:1,cuda:2", ("cuda:0+cuda:1", "cuda:2")),
    ],
)
def test_devices_are_slots(text: str | None, slots: tuple[str, ...]) -> None:
    assert slots_of(text) == slots


@pytest.mark.parametrize("text", ["gpu", "cuda", "cuda:x", "cpu:0", "cuda:0+cpu", "cuda:0,\x1b[31m"])
def test_a_device_that_is_none_is_named_with_its_setting(text: str) -> None:
    with pytest.raises(ConfigError, match=r"SDLORA_DEVICES: .* is no device") as refused:
        slots_of(text)
    assert "\x1b" not in str(refused.value)


def test_a_machine_trains_on_its_processor_only_or_not_at_all() -> None:
    with pytest.raises(ConfigError, match="SDLORA_DEVICES: cpu together with other devices"):
        slots_of("cpu,cuda:0")
