"""Text encoders of the families, with the outputs that condition the denoisers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from sdlora.models.families.base import TextPart


class ClipFinal(TextPart):
    """CLIP's last hidden state after the final norm: Stable Diffusion 1 and 2.

    The settings of version 2 omit OpenCLIP's last layer, so the last hidden state is OpenCLIP's penultimate one.
    """

    encoder_class = CLIPTextModel
    tokenizer_class = CLIPTokenizer
    output_names = ("hidden",)

    def outputs(self, encoder: nn.Module, token_ids: Tensor) -> dict[str, Tensor]:
        return {"hidden": encoder(token_ids).last_hidden_state}  # (B, T, D)


class ClipPenultimate(TextPart):
    """CLIP's hidden state before the last layer, without the final norm: Stable Diffusion XL's first encoder."""

    encoder_class = CLIPTextModel
    uses_last_layer = False
    tokenizer_class = CLIPTokenizer
    output_names = ("hidden",)

    def outputs(self, encoder: nn.Module, token_ids: Tensor) -> dict[str, Tensor]:
        return {"hidden": encoder(token_ids, output_hidden_states=True).hidden_states[-2]}  # (B, T, D)


class ClipProjected(TextPart):
    """CLIP's penultimate hidden state, and the projected embedding of the whole prompt."""

    encoder_class = CLIPTextModelWithProjection
    tokenizer_class = CLIPTokenizer
    output_names = ("hidden", "pooled")

    def outputs(self, encoder: nn.Module, token_ids: Tensor) -> dict[str, Tensor]:
        output: Any = encoder(token_ids, output_hidden_states=True)
        return {"hidden": output.hidden_states[-2], "pooled": output.text_embeds}  # (B, T, D), (B, P)


class ClipPooled(TextPart):
    """CLIP's pooled embedding of the whole prompt: FLUX."""

    encoder_class = CLIPTextModel
    tokenizer_class = CLIPTokenizer
    output_names = ("pooled",)

    def outputs(self, encoder: nn.Module, token_ids: Tensor) -> dict[str, Tensor]:
        return {"pooled": encoder(token_ids).pooler_output}  # (B, D)


class T5Final(TextPart):
    """T5's last hidden state. Padding is not masked, because the denoisers were trained without a mask."""

    encoder_class = T5EncoderModel
    is_t5 = True
    tokenizer_class = T5Tokenizer
    output_names = ("hidden",)

    def outputs(self, encoder: nn.Module, token_ids: Tensor) -> dict[str, Tensor]:
        return {"hidden": encoder(token_ids)[0]}  # (B, T, D)
