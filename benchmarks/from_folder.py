"""Run of sdlora from a raw folder of images to a saved adapter, with the fewest imports.

python benchmarks/from_folder.py --images FOLDER --home FOLDER [--steps 500] [--rate 2e-3]    # HOME/run/adapter
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sdlora.data.clean import clean
from sdlora.data.collect import collect
from sdlora.data.config import DataConfig
from sdlora.data.snapshot import Snapshot, make_snapshot
from sdlora.lora.config import LoraConfig
from sdlora.models.config import BaseModelConfig
from sdlora.store.image_store import ImageStore
from sdlora.training.config import TrainingConfig
from sdlora.training.defaults import resolve_training
from sdlora.training.fine_tuning import fine_tune
from sdlora.training.job import TrainingJob

SIDE_PX = 64


def snapshot_of(store: ImageStore, images: Path) -> Snapshot:
    config = DataConfig(sources=(str(images),))
    dataset = store.dataset("icons")
    collect(dataset, str(images), config)
    clean(dataset, config)
    return make_snapshot(dataset, config)


def main() -> None:
    from sdlora.models.files.sources import load_base_model

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    options = parser.parse_args()
    with ImageStore.open(options.home) as store:
        base = load_base_model(BaseModelConfig(), store.home)
        fine_tune(
            TrainingJob(
                base,
                snapshot_of(store, options.images),
                LoraConfig(rank=options.rank, targets="attention").filled(),
                resolve_training(
                    TrainingConfig(
                        steps=options.steps,
                        batch_size=options.batch_size,
                        learning_rate=options.rate,
                        precision=options.precision,
                        caption_dropout=0,  # the script has none
                    ),
                    base,
                    store.home,
                ),
                options.home / "run",
            ),
            store,
        )


if __name__ == "__main__":
    main()
