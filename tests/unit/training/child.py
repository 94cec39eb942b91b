"""A training process of its own: `python -m tests.unit.training.child KIND SETTING RUN_FOLDER STEP SIGNAL`.

It sends itself SIGNAL after STEP; with step -1 it runs to its end. A STEP of the form `0.7s` means a time instead.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import torch

from sdlora.store.image_store import ImageStore
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.job import TrainingJob
from tests.unit.training.setting import CONFIG, EVERYTHING, LONG, LORA, LORA_WITH_DROPOUT, Callbacks, read_setting

KINDS = {
    "everything": (LORA_WITH_DROPOUT, EVERYTHING),
    "fp32": (LORA, CONFIG.model_copy(update={"precision": "fp32"})),
    "long": (LORA_WITH_DROPOUT, LONG),
    "endless": (LORA, CONFIG.model_copy(update={"precision": "fp32", "steps": 1_000_000})),
}

if __name__ == "__main__":
    kind, setting, folder, fatal_step, signal_number = sys.argv[1:]
    torch.set_num_threads(1)

    if fatal_step.endswith("s"):
        killer = threading.Timer(float(fatal_step[:-1]), os.kill, (os.getpid(), int(signal_number)))
        killer.daemon = True
        killer.start()
        fatal_step = "-1"

    def die(step, values):
        if step == int(fatal_step) and "loss" in values:
            os.kill(os.getpid(), int(signal_number))

    base, home, snapshot = read_setting(Path(setting))
    lora, config = KINDS[kind]
    with ImageStore.open(home) as store:
        fine_tune(TrainingJob(base, snapshot, lora, config, Path(folder)), store, Callbacks(on_metrics=die))
