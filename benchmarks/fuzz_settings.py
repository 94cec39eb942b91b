"""Fuzz the reading of settings: files, `--set`, and parameters of forms, for some minutes.

    python benchmarks/fuzz_settings.py [--minutes 10] [--seed 0]

Each input has to give a configuration that can be written down, or a `ConfigError` of one short, printable message.
The inputs are those of `tests/unit/test_config_fuzz.py`. A failure is printed with its smallest example.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzzed_settings import check_flag, check_parameters, check_text, flags, outcomes, parameters, texts

EXAMPLES = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began, tried = time.monotonic(), 0
    slowest = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None]]] = {
            "files": (texts(), lambda text: check_text(text, folder)),
            "flags": (flags(), lambda text: check_flag(text, folder)),
            "parameters": (parameters(), lambda values: check_parameters(*values)),
        }
        counts = dict.fromkeys(kinds, 0)
        round_number = 0
        while time.monotonic() - began < 60 * options.minutes:
            for kind, (inputs, check) in kinds.items():

                def timed(value: Any, kind: str = kind, check: Callable[[Any], None] = check) -> None:
                    nonlocal slowest
                    started = time.perf_counter()
                    check(value)
                    slowest = max(slowest, time.perf_counter() - started)
                    counts[kind] += 1

                limits = settings(
                    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
                )
                seed(options.seed * 1_000_000 + round_number)(limits(given(inputs)(lambda value: timed(value))))()  # noqa: PLW0108
            round_number += 1
        tried = sum(counts.values())
    print(
        f"{tried} inputs in {(time.monotonic() - began) / 60:.1f} minutes: {counts}; the slowest took {slowest:.2f} s"
    )
    for outcome, count in sorted(outcomes.items()):
        print(f"  {outcome}: {count}")


if __name__ == "__main__":
    main()
