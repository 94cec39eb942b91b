"""LoHa and LoKr in peft's format, for use with diffusers, whose own loader does not read them.

    pipeline.unet = PeftModel.from_pretrained(pipeline.unet, "folder")

diffusers 0.42 reads LoRA, LoKr under some names, and no LoHa.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import peft
from safetensors.torch import load_file
from torch import Tensor

from sdlora.core.errors import WeightsError
from sdlora.lora.formats.diffusers import METADATA_KEY
from sdlora.lora.formats.tensor_file import write_tensor_file

WEIGHTS_FILE = "adapter_model.safetensors"
_CONFIG_CLASSES = {".hada_": peft.LoHaConfig, ".lokr_": peft.LoKrConfig}


def write_peft_files(folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bool:
    """Write `adapter_config.json` and `adapter_model.safetensors` of the denoiser's LoHa or LoKr into a folder.

    Args:
        folder: folder to write to.
        tensors: tensors of the diffusers file, by its names.
        metadata: metadata of the diffusers file.

    Returns:
        False for other methods: nothing is written, because diffusers reads its own file.

    Raises:
        WeightsError: the file read back differs from the tensors.
    """
    config_class = next(
        (config_class for mark, config_class in _CONFIG_CLASSES.items() if any(mark in key for key in tensors)), None
    )
    if config_class is None:
        return False
    part = next(key.split(".", 1)[0] for key in tensors if any(mark in key for mark in _CONFIG_CLASSES))
    settings = json.loads(metadata[METADATA_KEY])
    config = config_class(
        **{key.removeprefix(f"{part}."): v for key, v in settings.items() if key.startswith(f"{part}.")}
    )
    config.inference_mode = True
    config.save_pretrained(str(folder))
    named = {
        f"base_model.model.{key.removeprefix(f'{part}.')}": tensor
        for key, tensor in tensors.items()
        if key.startswith(f"{part}.")
    }
    write_tensor_file(folder / WEIGHTS_FILE, named, {"format": "pt"})
    written = load_file(folder / WEIGHTS_FILE)
    if written.keys() != named.keys() or any(not written[key].equal(named[key]) for key in named):
        raise WeightsError(f"{WEIGHTS_FILE} does not hold the exported tensors. It was removed.")
    return True
