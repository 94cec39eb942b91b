"""Everything sdlora raises on purpose.

SdloraError                 one clear message: setting, found, expected, remedy
├── ConfigError             a configuration file or option
├── DataError               a source, an image or a snapshot
├── WeightsError            a base model, adapter or checkpoint file
│   └── TargetModuleError   a LoRA target pattern that matches no layer
├── TrainingError           a run that cannot go on (loss is not a number, no batch fits)
├── EvaluationError         a missing or impossible measurement
└── StorageError            a disk that is full or not writable
"""

from __future__ import annotations


class SdloraError(Exception):
    """Base of all errors whose message is meant for the person who runs sdlora."""


class ConfigError(SdloraError):
    """A configuration file or option that cannot be used."""


class DataError(SdloraError):
    """A source, image or snapshot that cannot be used."""


class WeightsError(SdloraError):
    """A base model, adapter or checkpoint that cannot be loaded or trusted."""


class TargetModuleError(WeightsError):
    """A LoRA target pattern that matches no layer."""


class TrainingError(SdloraError):
    """A training run that cannot go on."""


class EvaluationError(SdloraError):
    """A measurement that is missing or cannot be made."""


class StorageError(SdloraError):
    """A disk that is full or a folder that cannot be written."""
