"""Exceptions of the library.

SdloraError                 a message with the setting, what was found, what was expected and the remedy
├── ConfigError             a configuration file or option
├── DataError               a source, an image or a snapshot
│   └── TakedownError       a run whose images include one that was purged
├── WeightsError            a base model, adapter or checkpoint file
│   ├── TargetModuleError   a LoRA target pattern that matches no layer
│   └── BaseMismatchError   an adapter file that was made for another base model
├── TrainingError           a run that cannot continue (loss is not a number, no batch fits)
├── EvaluationError         a missing or impossible measurement
└── StorageError            a disk that is full or not writable
"""

from __future__ import annotations


class SdloraError(Exception):
    """Base of all errors with a message for the user of sdlora."""


class ConfigError(SdloraError):
    """Unusable configuration file or option."""


class DataError(SdloraError):
    """Unusable source, image or snapshot."""


class TakedownError(DataError):
    """Run whose images include one that was purged, before it began or meanwhile."""


class WeightsError(SdloraError):
    """Base model, adapter or checkpoint that cannot be loaded or trusted."""


class TargetModuleError(WeightsError):
    """LoRA target pattern that matches no layer."""


class BaseMismatchError(WeightsError):
    """Adapter file that was made for another base model."""


class TrainingError(SdloraError):
    """Training run that cannot continue."""


class EvaluationError(SdloraError):
    """Missing or impossible measurement."""


class StorageError(SdloraError):
    """Full disk, or a folder that cannot be written."""
