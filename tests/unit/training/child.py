"""A training process that kills itself: `python -m tests.unit.training.child SETTING RUN_FOLDER STEP SIGNAL`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from sdlora.store import ImageStore
from sdlora.training import fine_tune
from tests.unit.training.setting import EVERYTHING, LORA_WITH_DROPOUT, read_setting

if __name__ == "__main__":
    setting, folder, fatal_step, signal_number = sys.argv[1:]
    torch.set_num_threads(1)

    def die(step, values):
        if step == int(fatal_step) and "loss" in values:
            os.kill(os.getpid(), int(signal_number))

    base, home, snapshot = read_setting(Path(setting))
    with ImageStore.open(home) as store:
        fine_tune(base, snapshot, store, LORA_WITH_DROPOUT, EVERYTHING, Path(folder), on_metrics=die)
