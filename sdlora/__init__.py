"""sdlora keeps a Stable Diffusion LoRA up to date with a growing collection of images.

Names are loaded when first used, so `import sdlora` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlora.core.lazy import names_on_first_use

if TYPE_CHECKING:
    from sdlora.adapter import LoRA
    from sdlora.config import PipelineConfig, load_config
    from sdlora.core.errors import SdloraError
    from sdlora.core.refs import AdapterRef, BaseModelRef, SnapshotRef
    from sdlora.models import StableDiffusion, load_base_model
    from sdlora.store import ImageStore

_HOMES = {
    "AdapterRef": "sdlora.core.refs",
    "BaseModelRef": "sdlora.core.refs",
    "ImageStore": "sdlora.store",
    "LoRA": "sdlora.adapter",
    "PipelineConfig": "sdlora.config",
    "SdloraError": "sdlora.core.errors",
    "SnapshotRef": "sdlora.core.refs",
    "StableDiffusion": "sdlora.models",
    "load_base_model": "sdlora.models",
    "load_config": "sdlora.config",
}

__version__ = "0.1.0"
__all__ = [
    "AdapterRef",
    "BaseModelRef",
    "ImageStore",
    "LoRA",
    "PipelineConfig",
    "SdloraError",
    "SnapshotRef",
    "StableDiffusion",
    "load_base_model",
    "load_config",
]

__getattr__ = names_on_first_use(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
