"""Headers of safetensors files: names, shapes, precisions and metadata, within bounds and without tensor data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from sdlora.core.errors import WeightsError
from sdlora.core.quoting import escaped

MAX_HEADER_BYTES = 16 * 2**20
"""Largest header that is read; a FLUX.1 takes 0.1 MB, a LoRA with the tags of a large collection a few."""
MAX_TENSORS = 50_000
"""Most tensors of a file; a LoKr of every layer of Stable Diffusion XL has about 4,000."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorHeader:
    """Content of a file's header.

    Attributes:
        shapes: shapes by tensor name.
        dtypes: precisions by tensor name, in safetensors' words: "F32", "BF16", ...
        metadata: text entries of the file's writer.
    """

    shapes: dict[str, Shape]
    dtypes: dict[str, str]
    metadata: dict[str, str]


def read_header(path: Path) -> TensorHeader:
    """Read and check the header of a safetensors file.

    The library checks that the tensors' bytes fill the file exactly, so no shape is larger than the file.

    Raises:
        WeightsError: the file is missing, truncated or no safetensors file, or its header is too large.
    """
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
        if header_bytes > min(path.stat().st_size, MAX_HEADER_BYTES):
            raise WeightsError(
                f"{path} is damaged or no safetensors file: its header would be {header_bytes:,} bytes long "
                f"(at most {MAX_HEADER_BYTES:,} are read). Copy the file again."
            )
        with safe_open(path, framework="np") as opened:
            names = list(opened.keys())
            if len(names) > MAX_TENSORS:
                raise WeightsError(f"{path} has {len(names):,} tensors, at most {MAX_TENSORS:,} are read.")
            slices = {name: opened.get_slice(name) for name in names}
            return TensorHeader(
                {name: tuple(part.get_shape()) for name, part in slices.items()},
                {name: part.get_dtype() for name, part in slices.items()},
                dict(opened.metadata() or {}),
            )
    except FileNotFoundError as error:
        raise WeightsError(f"{path} is missing. Copy the file again.") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is damaged or no safetensors file ({escaped(error)}). Copy the file again."
        ) from error
