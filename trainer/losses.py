"""Losses that are only maths. Pictures are (B, 3, S, S) in [0, 1]; every function returns a scalar tensor."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realtime.landmarks import BROWS


def weighted_l1(result: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute difference under a weight (B, 1, S, S)."""
    return ((result - truth).abs() * weight).mean()


def pyramid_l1(result: Tensor, truth: Tensor, weight: Tensor, levels: int = 4) -> Tensor:
    """`weighted_l1` summed over a pyramid of halvings: the coarse levels pull where pixels do not overlap yet."""
    total = weighted_l1(result, truth, weight)
    for _ in range(levels - 1):
        result, truth, weight = F.avg_pool2d(result, 2), F.avg_pool2d(truth, 2), F.avg_pool2d(weight, 2)
        total = total + weighted_l1(result, truth, weight)
    return total / levels


def masked_l1(result: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference within a mask (B, 1, S, S) of the whole batch, 0 where it is empty."""
    return ((result - truth).abs() * mask).sum() / (result.shape[1] * mask.sum() + 1)


def mask_entropy(mask: Tensor, hidden: Tensor) -> Tensor:
    """Cross entropy of a mask (B, 1, S, S) with 1 - hidden: where nothing is hidden, the photo is kept."""
    return F.binary_cross_entropy(mask.clamp(1e-4, 1 - 1e-4), 1 - hidden)


def gradient_difference(result: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Difference of horizontal and vertical gradients: sharpness (Mathieu et al. 2016, with absolute values)."""
    difference = result - truth
    across = (difference[..., :, 1:] - difference[..., :, :-1]).abs() * weight[..., :, 1:]
    down = (difference[..., 1:, :] - difference[..., :-1, :]).abs() * weight[..., 1:, :]
    return across.mean() + down.mean()


def flow_error(flow: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Robust distance between flows (B, 2, H, W) in crop pixels, where the true one is known: weight (B, H, W)."""
    return (F.smooth_l1_loss(flow, truth, beta=1.0, reduction="none").sum(1) * weight).mean()


def lsgan(score: Tensor, real: bool) -> Tensor:
    """Least-squares GAN (Mao et al. 2016): (score - 1)^2 for real, score^2 for generated."""
    return ((score - 1) if real else score).square().mean()


class PatchDiscriminator(nn.Module):
    """The thesis's discriminator (4.3.2, figure 4.6): a picture and its landmark channel, (B, 4, S, S) -> scores."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = [4, width, width * 2, width * 4, width * 8]
        layers: list[nn.Module] = []
        for index, (a, b) in enumerate(pairwise(widths)):
            layers.append(nn.Conv2d(a, b, 4, 2 if index < 3 else 1, 2))
            if index:
                layers.append(nn.InstanceNorm2d(b))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layers(pictures)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """The activations after each convolution, (B, C, H, W) each, and last the scores."""
        found = []
        for layer in self.layers:
            pictures = layer(pictures)
            if isinstance(layer, nn.LeakyReLU):
                found.append(pictures)
        return [*found, pictures]


def feature_matching(made: list[Tensor], real: list[Tensor]) -> Tensor:
    """Mean absolute difference of a discriminator's features, the mean over its layers (Wang et al. 2018, eq. 4)."""
    return torch.stack([(a.float() - b.float()).abs().mean() for a, b in zip(made, real, strict=True)]).mean()


def landmark_weight(heatmaps: Tensor, size: int) -> Tensor:
    """1 everywhere, up to 5 around the landmarks: (B, 56, H, W) -> (B, 1, S, S)."""
    near = F.max_pool2d(heatmaps.amax(1, keepdim=True), 3, 1, 1)
    return 1 + 4 * F.interpolate(near, size=(size, size), mode="bilinear", align_corners=False)


def sharp_parts(heatmaps: Tensor, size: int) -> Tensor:
    """1 on and near the landmarks of eyes, lips and pupils, falling to 0: (B, 56, H, W) -> (B, 1, S, S)."""
    near = F.max_pool2d(heatmaps[:, len(BROWS) :].amax(1, keepdim=True), 3, 1, 1)
    return F.interpolate(near, size=(size, size), mode="bilinear", align_corners=False)


def landmark_channel(heatmaps: Tensor, size: int) -> Tensor:
    """All heatmaps in one channel (thesis 4.1.2): (B, 56, H, W) -> (B, 1, S, S)."""
    merged = torch.clamp(heatmaps.sum(1, keepdim=True), 0, 1)
    return F.interpolate(merged, size=(size, size), mode="bilinear", align_corners=False)
