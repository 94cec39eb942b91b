"""Fuzzing of the readers of sources, for minutes per reader.

    python -m benchmarks.fuzz_sources --minutes 10 metadata lists sidecars
    python -m benchmarks.fuzz_sources --minutes 10            (all readers, one after the other)

An input fails if a reader raises an error that is not ours, takes more memory or time than its budget, or loses what
came before or after the hostile part. The smallest input that fails is printed, ready for
`tests/unit/data/fuzz_corpus`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from base64 import b64encode
from collections import Counter

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.unit.data.fuzzing import TARGETS, Target, check

EXAMPLES_PER_SEED = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], default=[])
    parser.add_argument("--minutes", type=float, default=10.0, help="time for each reader")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    failures = sum(
        [fuzz(TARGETS[name], 60 * arguments.minutes, arguments.seed) for name in arguments.targets or TARGETS]
    )
    sys.exit(1 if failures else 0)


def fuzz(target: Target, seconds: float, first_seed: int) -> int:
    """Fuzz one reader; print what fails, and return the number of different failures."""
    end, number, inputs, failures = time.monotonic() + seconds, first_seed, 0, Counter[str]()
    slowest = 0.0
    while time.monotonic() < end:
        last = b""

        @seed(number)
        @settings(
            max_examples=EXAMPLES_PER_SEED,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(target.inputs)
        def run(data: bytes) -> None:
            nonlocal inputs, last, slowest
            if time.monotonic() > end:
                return
            inputs, last, began = inputs + 1, data, time.monotonic()
            check(target, data)
            slowest = max(slowest, time.monotonic() - began)

        try:
            run()
        except Exception as error:  # noqa: BLE001  # what is looked for
            failure = _repeated(target, last)
            if failure is None:
                print(f"{target.name}: once only, on a busy machine: {str(error)[:100]!r}", flush=True)
            elif failures[failure] == 0:
                entry = {"target": target.name, "name": failure, "zlib": b64encode(zlib.compress(last)).decode()}
                print(json.dumps(entry), flush=True)
            failures.update([failure] if failure else [])
        number += 1
    print(
        f"{target.name}: {inputs:,} inputs, seeds {first_seed} to {number - 1}, {len(failures)} kinds of failure, "
        f"slowest input {slowest:.2f} s",
        flush=True,
    )
    return len(failures)


def _repeated(target: Target, data: bytes) -> str | None:
    """Return the failure of an input that fails again in one of three tries; None if it does not."""
    for _ in range(3):
        try:
            check(target, data)
        except Exception as error:  # noqa: BLE001  # what is looked for
            return f"{type(error).__name__}: {str(error)[:200]}"
    return None


if __name__ == "__main__":
    main()
