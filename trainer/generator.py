"""The generator that ships: the photo's own pixels, moved by a predicted flow; new colour where they were hidden.

The target encoder runs once per photo. The generator runs once per frame on the driving heatmaps, the landmarks' flow
prior and the cached features (the idea of a warped, masked source is FOMM's: Siarohin et al. 2019).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realtime.compositor import border_window
from realtime.head import Head
from realtime.landmarks import COUNT, STRIDE, render_heatmaps
from realtime.prior import driving_prior

FLOW_STRIDE = 2  # crop pixels per cell of the flow
SHARP = 38  # eyes, lips and pupils, the last landmarks, are read at stride 4 once more: their outlines must be sharp
PRIOR_SCALE = 16.0  # crop pixels per unit of flow inside the network


@dataclass(frozen=True)
class GeneratorSettings:
    """Channels of the target's feature maps at strides 2, 4 and 8, of the motion network's levels at
    strides 8, 16 and 32, and of the painter's at strides 4 and 2."""

    fine: int = 16
    middle: int = 48
    coarse: int = 96
    motion: tuple[int, ...] = (64, 96, 128)
    painter: tuple[int, ...] = (48, 24)


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    """Two 3x3 convolutions beside an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


def up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def shuffled(x: Tensor) -> Tensor:
    """Four pictures (B, 4 C, H, W) interleaved to one, (B, C, 2 H, 2 W), whose channels stay together in memory."""
    _, channels, height, width = x.shape
    phases = x.reshape(-1, 2, 2, channels // 4, height, width).permute(0, 3, 4, 1, 5, 2)  # -1: of any batch, exported
    return phases.reshape(-1, channels // 4, 2 * height, 2 * width)


def upsampled(x: Tensor) -> Tensor:
    """`up` of one channel, (B, 1, H, W), as the four phases (B, 4, H, W) that `pixel_shuffle` interleaves."""
    near, far = x.new_tensor([0.25, 0.75, 0.0]), x.new_tensor([0.0, 0.75, 0.25])
    kernels = torch.stack([torch.outer(a, b) for a in (near, far) for b in (near, far)])
    return F.conv2d(x, kernels[:, None], padding=1)


def base_grid(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Sampling positions in [-1, 1] of every pixel's own centre: (1, height, width, 2)."""
    y = (torch.arange(height, device=device) + 0.5) * (2 / height) - 1
    x = (torch.arange(width, device=device) + 0.5) * (2 / width) - 1
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[None]


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Backward warp: out(x) = image(x + flow), of (B, C, H, W) by (B, 2, H, W) in fractions of the picture's side."""
    grid = base_grid(image.shape[2], image.shape[3], image.device) + 2 * flow.permute(0, 2, 3, 1)
    return F.grid_sample(image, grid.to(image.dtype), mode="bilinear", padding_mode="border", align_corners=False)


class TargetEncoder(nn.Module):
    """Photo crop (B, 3, S, S) in [0, 1] and its heatmaps (B, 56, S/4, S/4) -> features at strides 2, 4 and 8."""

    outputs = ("fine", "middle", "coarse")

    def __init__(self, settings: GeneratorSettings = GeneratorSettings()) -> None:
        super().__init__()
        s = settings
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 5, 2, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True))
        self.fine = nn.Sequential(Residual(32), nn.Conv2d(32, s.fine, 1))
        self.down = convolution(32, 64, 2)
        self.join = convolution(64 + COUNT, 64)
        self.middle = nn.Sequential(Residual(64), nn.Conv2d(64, s.middle, 1))
        self.coarse = nn.Sequential(convolution(64, 96, 2), Residual(96), nn.Conv2d(96, s.coarse, 1))

    def forward(self, photo: Tensor, heatmaps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stem(photo - 0.5)
        middle = self.join(torch.cat([self.down(x), heatmaps], 1))
        return self.fine(x), self.middle(middle), self.coarse(middle)


class Generator(nn.Module):
    """Driving heatmaps (B, 56, S/4, S/4), prior (B, 3, S/2, S/2) whose flow is in crop pixels of S = 256, target
    features -> flow (B, 2, S/2, S/2) in such pixels, mask (B, 1, S, S) and colour (B, 3, S, S) in [0, 1]."""

    def __init__(self, settings: GeneratorSettings = GeneratorSettings()) -> None:
        super().__init__()
        s = self.settings = settings
        a, b, c = s.motion
        d, e = s.painter
        # Heatmaps carry little more than 56 points: read at stride 8 at once.
        self.read = convolution(COUNT + 2, a, 2)
        self.join = convolution(a + s.coarse, a)
        self.at8 = Residual(a)
        self.to16 = convolution(a, b, 2)
        self.at16 = Residual(b)
        self.to32 = convolution(b, c, 2)
        self.at32 = nn.Sequential(Residual(c), Residual(c))
        self.from32 = convolution(c + b, b)
        self.from16 = nn.Sequential(convolution(b + a, a), Residual(a))
        self.flow8 = nn.Conv2d(a, 2, 3, 1, 1)
        # Decoder: moved features at stride 4, then 2; the last picture comes by pixel shuffle.
        self.at4 = nn.Sequential(convolution(a + s.middle + 2 + SHARP + 1, d), Residual(d))
        self.flow4 = nn.Conv2d(d, 2, 3, 1, 1)
        self.refine = Residual(d)
        # A sub-pixel convolution (Shi et al. 2016): at stride 2 it would cost twice the time.
        self.spread = nn.Conv2d(d, 4 * e, 3, 1, 1)
        self.detail = nn.Conv2d(s.fine + 1, e, 3, 1, 1)
        self.at2 = convolution(e, e)
        self.flow2 = nn.Conv2d(e, 2, 3, 1, 1)  # lids and lips part within a pixel or two
        self.paint = nn.Conv2d(e, 16, 3, 1, 1)
        for head in (self.flow8, self.flow4, self.flow2):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(
        self, driving: Tensor, prior: Tensor, fine: Tensor, middle: Tensor, coarse: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        unit, hidden = prior[:, :2] / 256, prior[:, 2:]
        unit4 = F.avg_pool2d(unit, 2)
        x = self.read(torch.cat([driving, unit4 * (256 / PRIOR_SCALE)], 1))
        x = self.at8(self.join(torch.cat([x, warp(coarse, F.avg_pool2d(unit4, 2))], 1)))
        y = self.at16(self.to16(x))
        z = self.at32(self.to32(y))
        y = self.from32(torch.cat([up(z), y], 1))
        x = self.from16(torch.cat([up(y), x], 1))
        # The prior's edges stay sharp: what is learnt is added to it, level by level.
        change = up(self.flow8(x)) * (PRIOR_SCALE / 256)
        rough = unit4 + change
        sharp = torch.cat([driving[:, COUNT - SHARP :], F.avg_pool2d(hidden, 2)], 1)
        x = self.at4(torch.cat([up(x), warp(middle, rough), rough * (256 / PRIOR_SCALE), sharp], 1))
        flow = unit + up(change + self.flow4(x) * (PRIOR_SCALE / 256))
        detail = self.detail(torch.cat([warp(fine, flow), hidden], 1))
        x = self.at2(F.relu(shuffled(self.spread(self.refine(x))) + detail))
        # At the crop's border the prior goes on beyond it, and what is learnt has faded away.
        fade = torch.from_numpy(border_window(flow.shape[-1])).to(flow.device)
        flow = unit + fade * (flow + self.flow2(x) * (PRIOR_SCALE / 256) - unit)
        mask, colour = torch.split(torch.sigmoid(self.paint(x)), [4, 12], 1)
        # No flow can bring what the photo's lips hide: there is nothing of the photo where they uncover it.
        return flow * 256, F.pixel_shuffle(mask * (1 - upsampled(hidden)), 2), F.pixel_shuffle(colour, 2)


def compose(photo: Tensor, flow: Tensor, mask: Tensor, colour: Tensor, window: Tensor) -> Tensor:
    """The moved photo and the new colour blended as the live compositor does, at the crop's resolution.

    flow (B, 2, S/2, S/2) in pixels of 256; window (S, S), the colour's share, falls from 1 to 0 at the
    crop's border.
    """
    size = photo.shape[-1]
    full = F.interpolate(flow.float() / 256, size=(size, size), mode="bilinear", align_corners=False)
    moved = warp(photo.float(), full)
    share = (1 - mask.float()) * window
    return moved + share * (colour.float() - moved)


def conditions(pairs: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """What the networks read of pairs whose arrays begin with the batch: heatmaps (B, 56, S/4, S/4) of both and the
    prior (B, 3, S/2, S/2)."""
    cells = size // STRIDE
    heads = map(Head, *(pairs[name].astype(np.float32) for name in ("target", "own", "apart")))
    prior = [driving_prior(d, head, size // FLOW_STRIDE) for d, head in zip(pairs["driving"], heads, strict=True)]
    return {
        "driving": render_heatmaps(pairs["driving"], cells),
        "heatmaps": render_heatmaps(pairs["target"], cells),
        "prior": np.stack(prior),
    }
