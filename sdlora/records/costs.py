"""Costs of a training: its steps, time, memory and files."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError

from sdlora.core.config_base import FrozenConfig
from sdlora.core.errors import TrainingError

COSTS_FILE = "costs.json"


class Costs(FrozenConfig):
    """Costs of one training; 0 without a measurement, as for the untrained base."""

    steps: int = 0
    trained_parameters: int = 0
    seconds: float = Field(0.0, description="wall time of the training, from loading the base to the written file")
    processor_seconds: float = Field(
        0.0, description="processor time over all cores; other work on the machine does not lengthen it"
    )
    process_peak_bytes: int = Field(0, description="peak memory of the training's process")
    training_peak_bytes: int = Field(0, description="peak above the memory of the loaded libraries")
    file_bytes: int = 0

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the measured time and memory from `folder/costs.json`; without the file all values are 0.

        Raises:
            TrainingError: the file is damaged, or of another version.
        """
        path = folder / COSTS_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, ValidationError) as error:
            problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise TrainingError(
                f"{path} does not hold a training's costs ({problem}). Delete the run's folder to train and measure "
                "again, or delete only this file to continue without the earlier measurements."
            ) from error
