"""The denoiser's adapter in peft's format: the way into diffusers for LoHa and LoKr, which its own loader refuses.

pipeline.unet = PeftModel.from_pretrained(pipeline.unet, "folder")
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import peft
from safetensors.torch import load_file
from torch import Tensor

from sdlora.core.errors import WeightsError
from sdlora.lora.formats.tensor_file import write_tensor_file
from sdlora.models.adapter_file import METADATA_KEY

WEIGHTS_FILE = "adapter_model.safetensors"
_CONFIG_CLASSES = {".hada_": peft.LoHaConfig, ".lokr_": peft.LoKrConfig, ".lora_": peft.LoraConfig}


def write_peft_files(folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` of the denoiser into a folder.

    Text encoders are left out: their layers have other names in transformers 4 and 5, and peft knows one of them.

    Args:
        folder: folder to write to.
        tensors: tensors of the diffusers file, by its names.
        metadata: metadata of the diffusers file.

    Raises:
        WeightsError: the file read back differs from the tensors.
    """
    part = next(name for key in tensors if not (name := key.split(".", 1)[0]).startswith("text_encoder"))
    keys = [key for key in tensors if key.startswith(f"{part}.")]
    config_class = next(chosen for mark, chosen in _CONFIG_CLASSES.items() if any(mark in key for key in keys))
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
