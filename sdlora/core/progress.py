"""How the library tells its caller what it is doing. It never prints and never logs to a tracker itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

OnProgress = Callable[[str, int, int], None]
"""Called as (stage, done, total); `stage` is a few words such as "decode images", `total` 0 while it is not known."""

OnMetrics = Callable[[int, Mapping[str, float]], None]
"""Called as (step, values by metric name)."""
