"""sdlora keeps a Stable Diffusion LoRA up to date with a growing collection of images.

Names are loaded on first use (PEP 562), so `import sdlora` costs nothing. This is the only package with a lazy face.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdlora.adapter import LoRA
    from sdlora.config import PipelineConfig, load_config
    from sdlora.core.errors import SdloraError
    from sdlora.core.refs import AdapterRef, BaseModelRef, SnapshotRef
    from sdlora.data.clean import clean
    from sdlora.data.collect import collect
    from sdlora.data.snapshot import make_snapshot
    from sdlora.evaluation.contest import Contest
    from sdlora.evaluation.duel import run_duel
    from sdlora.models.files.sources import load_base_model
    from sdlora.models.stable_diffusion import StableDiffusion
    from sdlora.store.image_store import ImageStore

_MODULES = {
    "AdapterRef": "sdlora.core.refs",
    "BaseModelRef": "sdlora.core.refs",
    "Contest": "sdlora.evaluation.contest",
    "ImageStore": "sdlora.store.image_store",
    "LoRA": "sdlora.adapter",
    "PipelineConfig": "sdlora.config",
    "SdloraError": "sdlora.core.errors",
    "SnapshotRef": "sdlora.core.refs",
    "StableDiffusion": "sdlora.models.stable_diffusion",
    "clean": "sdlora.data.clean",
    "collect": "sdlora.data.collect",
    "load_base_model": "sdlora.models.files.sources",
    "load_config": "sdlora.config",
    "make_snapshot": "sdlora.data.snapshot",
    "run_duel": "sdlora.evaluation.duel",
}

__version__ = "0.1.0"
__all__ = [
    "AdapterRef",
    "BaseModelRef",
    "Contest",
    "ImageStore",
    "LoRA",
    "PipelineConfig",
    "SdloraError",
    "SnapshotRef",
    "StableDiffusion",
    "clean",
    "collect",
    "load_base_model",
    "load_config",
    "make_snapshot",
    "run_duel",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module and return the name.

    Raises:
        AttributeError: sdlora has no such name.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
