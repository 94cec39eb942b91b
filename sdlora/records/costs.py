"""Costs of a training: its steps, time, memory, and what it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError

from sdlora.core.config_base import FrozenConfig
from sdlora.core.errors import TrainingError

COSTS_FILE = "costs.json"


class Costs(FrozenConfig):
    """Costs of one training; 0 without a measurement, as for the base, which was not trained."""

    steps: int = 0
    trained_parameters: int = 0
    seconds: float = Field(0.0, description="training alone, from loading the base to the written file")
    processor_seconds: float = Field(0.0, description="of all its processors, which other work does not stretch")
    process_peak_bytes: int = Field(0, description="the most that the training's own process held")
    training_peak_bytes: int = Field(0, description="of it, above what it held with the libraries loaded")
    file_bytes: int = 0

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `folder/costs.json`, which holds the measured time and memory; without the file all is 0.

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
                "again, or this file alone to go without what was measured so far."
            ) from error
