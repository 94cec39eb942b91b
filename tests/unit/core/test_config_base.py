from __future__ import annotations

from sdlora.core.config_base import dotted


def test_nested_settings_have_dotted_names_in_their_order():
    settings = {"z": {"b": {"c": 1}, "a": None}, "list": [1, 2], "empty": {}}
    assert list(dotted(settings).items()) == [("z.b.c", 1), ("z.a", None), ("list", [1, 2])]
