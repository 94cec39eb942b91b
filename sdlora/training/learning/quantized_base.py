"""What cannot be trained on a base held in fewer bits, said before any work is done."""

from __future__ import annotations

from sdlora.core.errors import ConfigError
from sdlora.core.refs import BaseModelRef, Quantization
from sdlora.lora.config import Method, ResolvedLora
from sdlora.models.quantize import require_quantizer

_OTHER_UPDATES = "peft computes LoRA, rsLoRA and DoRA beside quantised layers, no others"
_WHY_NOT: dict[tuple[Quantization, Method], str] = {
    ("int8", "pissa"): "PiSSA takes a part out of each weight, and what is left would be rounded again",
    ("int8", "loha"): _OTHER_UPDATES,
    ("int8", "lokr"): _OTHER_UPDATES,
    # peft 0.21 with bitsandbytes 0.50 on a CPU: asking a layer for its weight loses the factors of its rows.
    ("int8", "dora"): "peft reads the weight for it, and an 8-bit layer on a CPU does not survive that; nf4 does",
}
_WHY_NOT |= {("nf4", method): why for (_, method), why in _WHY_NOT.items() if method != "dora"}


def check_quantized(base: BaseModelRef, lora: ResolvedLora | None) -> None:
    """Find out whether a run can be trained as `base_model.quantize` says.

    Args:
        base: the base model; nothing is asked of one that is not quantised.
        lora: the adapter's settings; None where all weights learn.

    Raises:
        ConfigError: the library is missing, or what learns needs the weights as they are.
    """
    if base.quantize is None:
        return
    if lora is None:
        raise ConfigError(
            f"base_model.quantize: {base.quantize} holds frozen weights in few bits, and regular fine-tuning (full) "
            "moves them by less than such a step. Set base_model.quantize to null, or train an adapter."
        )
    why = _WHY_NOT.get((base.quantize, lora.method))
    if why:
        raise ConfigError(
            f"base_model.quantize: {base.quantize} cannot be used with lora.method {lora.method}: "
            f"{why}. Set base_model.quantize to null, or lora.method to lora."
        )
    require_quantizer(base.quantize)
