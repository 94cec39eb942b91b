"""A run that has others work for it: `python -m tests.unit.training.parent REQUEST`; prints each step it hears of."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from sdlora.core.errors import SdloraError
from sdlora.store import ImageStore
from sdlora.training.launch import FineTuneRequest, fine_tune_request

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line does
    request = FineTuneRequest.model_validate_json(Path(sys.argv[1]).read_text())
    try:
        with ImageStore.open(request.home) as store:
            fine_tune_request(request, store, on_metrics=lambda step, _values: print(step, flush=True))
    except SdloraError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
