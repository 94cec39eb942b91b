"""Adapters whose files are wrong and whose digests are right, as only somebody who writes both can make them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from sdlora.core.files import file_sha256, json_digest
from sdlora.core.refs import ADAPTER_WEIGHTS
from sdlora.lora.formats.tensor_file import write_tensor_file
from sdlora.models.adapter_file import METADATA_KEY


class Forgery:
    """Content of an adapter's folder, to be changed and written again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = json.loads((folder / "adapter.json").read_text())
        self.weights, self.metadata = _read(folder / ADAPTER_WEIGHTS)
        self.kohya, self.kohya_metadata = _read(folder / self.manifest["kohya_file"])
        self.settings = json.loads(self.metadata[METADATA_KEY])

    @property
    def layers(self) -> list[str]:
        return self.settings["unet.target_modules"]

    def each_tensor(self, change: Callable[[Tensor], Tensor], of: str = "") -> None:
        """Change every tensor, or those of one layer, in both files; alphas stay."""
        for tensors, name in ((self.weights, of), (self.kohya, of.replace(".", "_"))):
            for key in tensors:
                if name in key and not key.endswith(".alpha"):
                    tensors[key] = change(tensors[key])

    def remove(self, layer: str) -> None:
        for tensors, name in ((self.weights, f"unet.{layer}."), (self.kohya, _kohya(layer))):
            for key in [key for key in tensors if key.startswith(name)]:
                del tensors[key]

    def copy(self, layer: str, new: str) -> None:
        for tensors, old, name in (
            (self.weights, f"unet.{layer}.", f"unet.{new}."),
            (self.kohya, _kohya(layer), _kohya(new)),
        ):
            tensors |= {key.replace(old, name): tensor.clone() for key, tensor in tensors.items() if old in key}

    def write(self) -> None:
        weights, kohya = self.folder / ADAPTER_WEIGHTS, self.folder / Path(self.manifest["kohya_file"]).name
        self.metadata[METADATA_KEY] = json.dumps(self.settings, sort_keys=True)
        write_tensor_file(weights, self.weights, self.metadata)
        write_tensor_file(kohya, self.kohya, self.kohya_metadata)
        self.manifest |= {"digest": file_sha256(weights), "kohya_digest": file_sha256(kohya)}
        entries = {name: value for name, value in self.manifest.items() if name != "own_digest"}
        (self.folder / "adapter.json").write_text(json.dumps(entries | {"own_digest": json_digest(entries)}))


def _kohya(layer: str) -> str:
    return f"lora_unet_{layer.replace('.', '_')}."


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key).clone() for key in file.keys()}, file.metadata()  # noqa: SIM118


def not_a_number(forged: Forgery) -> None:
    forged.each_tensor(lambda tensor: torch.full_like(tensor, float("nan")))


def one_infinity(forged: Forgery) -> None:
    forged.each_tensor(lambda tensor: tensor.index_fill(0, torch.tensor([0]), float("inf")), of=forged.layers[3])


def no_tensors(forged: Forgery) -> None:
    forged.weights.clear()
    forged.kohya.clear()


def a_layer_less(forged: Forgery) -> None:
    forged.remove(forged.layers[0])


def a_layer_less_in_the_settings_too(forged: Forgery) -> None:
    forged.remove(forged.layers[0])
    forged.settings["unet.target_modules"] = forged.layers[1:]


def half_a_layer(forged: Forgery) -> None:
    layer = forged.layers[0]
    del forged.weights[f"unet.{layer}.lora_B.weight"], forged.kohya[f"{_kohya(layer)}lora_up.weight"]


def a_layer_more(forged: Forgery) -> None:
    forged.copy(forged.layers[0], "mid_block.stray")


def a_layer_more_in_the_settings_too(forged: Forgery) -> None:
    forged.copy(forged.layers[0], "conv_in")
    forged.settings["unet.target_modules"] = [*forged.layers, "conv_in"]


def another_shape(forged: Forgery) -> None:
    forged.each_tensor(lambda tensor: torch.cat([tensor, tensor]) if tensor.shape[1] == 2 else tensor)


def a_rank_of_a_million(forged: Forgery) -> None:
    forged.settings["unet.r"] = forged.manifest["lora"]["rank"] = 10**6


def another_rank_in_the_manifest(forged: Forgery) -> None:
    forged.manifest["lora"]["rank"] = 10**6


def another_alpha_in_the_file(forged: Forgery) -> None:
    forged.settings["unet.lora_alpha"] = 300.0


def an_alpha_that_is_no_number(forged: Forgery) -> None:
    forged.settings["unet.lora_alpha"] = float("nan")


def another_method_in_the_manifest(forged: Forgery) -> None:
    forged.manifest["lora"]["method"] = "loha"


def a_part_that_the_settings_have_not(forged: Forgery) -> None:
    forged.manifest["lora"]["text_encoder_rank"] = 2


def a_setting_of_peft_that_sdlora_does_not_write(forged: Forgery) -> None:
    forged.settings["unet.init_lora_weights"] = "eva"


def a_file_outside_the_folder(forged: Forgery) -> None:
    forged.manifest["kohya_file"] = "../style.safetensors"


# These change the file for other tools alone, which sdlora exports and does not draw with.


def another_alpha_for_other_tools(forged: Forgery) -> None:
    forged.kohya[f"{_kohya(forged.layers[0])}alpha"] *= 100


def a_layer_less_for_other_tools(forged: Forgery) -> None:
    for key in [key for key in forged.kohya if key.startswith(_kohya(forged.layers[0]))]:
        del forged.kohya[key]


def another_adapter_for_other_tools(forged: Forgery) -> None:
    forged.kohya = {key: tensor if key.endswith(".alpha") else -2 * tensor for key, tensor in forged.kohya.items()}


def not_a_number_for_other_tools(forged: Forgery) -> None:
    forged.kohya = {key: torch.full_like(tensor, float("nan")) for key, tensor in forged.kohya.items()}


WRONG_FOR_ALL = (
    not_a_number,
    one_infinity,
    no_tensors,
    a_layer_less,
    a_layer_less_in_the_settings_too,
    half_a_layer,
    a_layer_more,
    a_layer_more_in_the_settings_too,
    another_shape,
    a_rank_of_a_million,
    another_rank_in_the_manifest,
    another_alpha_in_the_file,
    an_alpha_that_is_no_number,
    another_method_in_the_manifest,
    a_part_that_the_settings_have_not,
    a_setting_of_peft_that_sdlora_does_not_write,
    a_file_outside_the_folder,
)
# Wrong without a look at `adapter.json`. An adapter of fewer layers, or of another alpha, is not.
WRONG_BY_ITSELF = (
    not_a_number,
    one_infinity,
    no_tensors,
    a_layer_less,
    half_a_layer,
    a_layer_more,
    another_shape,
    a_rank_of_a_million,
    an_alpha_that_is_no_number,
    a_setting_of_peft_that_sdlora_does_not_write,
)
WRONG_FOR_OTHER_TOOLS = (
    another_alpha_for_other_tools,
    a_layer_less_for_other_tools,
    another_adapter_for_other_tools,
    not_a_number_for_other_tools,
)
