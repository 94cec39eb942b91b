"""KID and FID between real and generated images, with intervals, from precomputed features.

Row i of the generated features comes from the caption of real image i. A resample draws these pairs, so the interval
covers the choice of prompts as well as the choice of images.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance


class _Precomputed(nn.Module):
    """Identity module that torchmetrics takes for a feature network."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def kid(real: Tensor, generated: Tensor) -> float:
    """Compute the Kernel Inception Distance of two (N, D) feature matrices; unbiased, so it may be negative.

    A single subset of all N images is used, so the result is deterministic and every image counts once. Real image i
    and sample i share a caption. This lowers the value slightly (by the excess of their kernel over other pairs,
    times 2 / N), equally for all contestants.
    Source: Binkowski et al. 2018, arXiv:1801.01401.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features.*")
        metric = KernelInceptionDistance(_Precomputed(real.shape[1]), subsets=1, subset_size=len(real))
    metric.update(real, real=True)
    metric.update(generated, real=False)
    # torchmetrics shuffles with the global generator. The order moves the seventh digit, so it is fixed here.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return float(metric.compute()[0].item())


def fid(real: Tensor, generated: Tensor) -> float:
    """Compute the Fréchet Inception Distance of two (N, D) feature matrices.

    With fewer images than dimensions the covariances are rank-deficient and FID is biased upwards. Use FID only to
    compare contestants at the same N. Source: Heusel et al. 2017, arXiv:1706.08500.
    """
    # FID is invariant under rotation, so the features are first projected onto a basis of the span of the 2N vectors.
    # torchmetrics' eigenvalues of a 1280 x 1280 matrix take seconds, of a 2N x 2N matrix milliseconds.
    basis, _ = torch.linalg.qr(torch.cat([real, generated]).double().T)  # (D, min(D, 2N))
    metric = FrechetInceptionDistance(_Precomputed(basis.shape[1]))
    metric.update(real.double() @ basis, real=True)
    metric.update(generated.double() @ basis, real=False)
    return float(metric.compute().item())


@dataclass(frozen=True)
class Kernels:
    """Kernel matrices (N, N): real with real, generated with generated, real (rows) with generated (columns)."""

    real: Tensor
    generated: Tensor
    cross: Tensor


def polynomial_kernels(real: Tensor, generated: Tensor) -> Kernels:
    """Compute KID's cubic kernel (x . y / D + 1)^3 in float64."""
    real, generated, dim = real.double(), generated.double(), real.shape[1]
    return Kernels(*((a @ b.T / dim + 1) ** 3 for a, b in ((real, real), (generated, generated), (real, generated))))


def resampled_kid(kernels: Kernels, counts: Tensor) -> Tensor:
    """Compute the KID of each resample: (R, N) counts -> (R,) values.

    A resample holds some images twice. The kernel of an image with itself would count as two different but equal
    images and raise the distance by about k(x, x) / N. Pairs of an image with itself are therefore left out. In the
    cross term the pairs (real i, generated i) keep the weight 1/N that they have in the full set.
    """
    images = counts.shape[1]
    pairs = counts.sum(1) ** 2 - counts.square().sum(1)

    def mean_of_pairs(kernel: Tensor) -> Tensor:  # over i != j
        return (((counts @ kernel) * counts).sum(1) - counts.square() @ kernel.diagonal()) / pairs

    own_pairs = counts @ kernels.cross.diagonal() / counts.sum(1)
    cross = (1 - 1 / images) * mean_of_pairs(kernels.cross) + own_pairs / images
    return mean_of_pairs(kernels.real) + mean_of_pairs(kernels.generated) - 2 * cross


def linear_kernels(real: Tensor, generated: Tensor) -> Kernels:
    """Inner products, from which `resampled_fid` knows means and covariances; in float64."""
    real, generated = real.double(), generated.double()
    return Kernels(real @ real.T, generated @ generated.T, real @ generated.T)


def resampled_fid(kernels: Kernels, counts: Tensor) -> Tensor:
    """Compute the exact FID of each resample without a (D, D) covariance: (R, N) counts -> (R,) values.

    The trace of the root of a product of covariances is the nuclear norm of A B^T. A and B are the centred features
    over sqrt(N - 1), so the problem has size N x N and needs inner products only. Resamples hold fewer distinct
    images, which biases them further upwards than the full set. Centre them before reading an interval.
    """
    images = counts.shape[1]
    values = []
    for row in counts.long():
        indices = torch.repeat_interleave(torch.arange(images), row)
        real, generated, cross = (k[indices][:, indices] for k in (kernels.real, kernels.generated, kernels.cross))
        between_means = real.mean() + generated.mean() - 2 * cross.mean()
        total_variances = real.diagonal().mean() - real.mean() + generated.diagonal().mean() - generated.mean()
        centred = cross - cross.mean(0, keepdim=True) - cross.mean(1, keepdim=True) + cross.mean()
        root = torch.linalg.svdvals(centred).sum() / (images - 1)
        values.append(between_means + total_variances * images / (images - 1) - 2 * root)
    return torch.stack(values)
