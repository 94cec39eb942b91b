"""A run that has others work for it: `python -m tests.unit.training.parent JOB`; prints each step it hears of."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from sdlora.core.errors import SdloraError
from sdlora.training.launch import opened_job, run_job
from tests.unit.training.setting import Callbacks

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line does
    try:
        with opened_job(Path(sys.argv[1])) as (job, store):
            run_job(job, store, Callbacks(on_metrics=lambda step, _values: print(step, flush=True)))
    except SdloraError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
