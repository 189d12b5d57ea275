"""The thesis's generator (4.3.1): two feature pyramids that share no weights, and one decoder that paints the picture.

It stands behind the same two graphs as the generator that ships: the target's pyramid is the encoder, the source's
pyramid and the decoder are the generator, which takes all of the picture from its colour and moves nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realtime.landmarks import COUNT, STRIDE
from trainer.detector import ResNet
from trainer.generator import up

SOURCES = ("heatmaps", "picture")


@dataclass(frozen=True)
class FpnSettings:
    """Widths and blocks of the backbones (ResNet-18), channels of each pyramid's levels, and of the decoder's.

    `source`: what the generator sees of the source, its heatmaps, or its picture as in the thesis, which no bundle can
    hold: the live program hands over landmarks.
    """

    widths: tuple[int, ...] = (64, 64, 128, 256, 512)
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    pyramid: int = 64
    decoder: tuple[int, ...] = (128, 128, 96, 64, 48)
    source: str = "heatmaps"


BACKBONES = {
    "resnet18": FpnSettings(),
    "small": FpnSettings((16, 24, 48, 96, 160), (1, 1, 1, 1), 32, (64, 64, 48, 32, 24)),  # for CPUs
}


class Pyramid(nn.Module):
    """Feature Pyramid Network (Lin et al. 2016): a picture (B, C, S, S) -> five maps at strides 2, 4, 8, 16 and 32."""

    def __init__(self, settings: FpnSettings, inputs: int) -> None:
        super().__init__()
        self.backbone = ResNet(settings.widths, settings.blocks, inputs)
        self.lateral = nn.ModuleList(nn.Conv2d(width, settings.pyramid, 1) for width in settings.widths)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        levels = [lateral(level) for lateral, level in zip(self.lateral, self.backbone(x), strict=True)]
        for index in range(len(levels) - 2, -1, -1):
            levels[index] = levels[index] + up(levels[index + 1])
        return tuple(levels)


class FpnTargetEncoder(nn.Module):
    """Photo crop (B, 3, S, S) in [0, 1] -> its pyramid.

    The thesis's target side does not look at landmarks: times nothing, they stay an input of the exported graph.
    """

    outputs = ("stride2", "stride4", "stride8", "stride16", "stride32")

    def __init__(self, settings: FpnSettings = FpnSettings()) -> None:
        super().__init__()
        self.pyramid = Pyramid(settings, 3)

    def forward(self, photo: Tensor, heatmaps: Tensor) -> tuple[Tensor, ...]:
        at2, at4, *rest = self.pyramid(photo - 0.5)
        return at2, at4 + 0 * heatmaps[:, :1], *rest


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in ((inputs, outputs), (outputs, outputs)):
        layers += [nn.Conv2d(a, b, 3, 1, 1, bias=False), nn.InstanceNorm2d(b, affine=True), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class FpnGenerator(nn.Module):
    """The source as driving heatmaps (B, 56, S/4, S/4), or its crop (B, 3, S, S) in [0, 1]; a flow prior (B, 2, S/2,
    S/2) that is not used; and the target's pyramid -> no flow, an empty mask (B, 1, S, S) and the picture
    (B, 3, S, S) in [0, 1]."""

    def __init__(self, settings: FpnSettings = FpnSettings()) -> None:
        super().__init__()
        self.settings = settings
        self.source = Pyramid(settings, 3 if settings.source == "picture" else COUNT)
        inputs = 0
        self.decode = nn.ModuleList()
        for width in settings.decoder:  # from stride 32 to stride 2
            self.decode.append(_block(inputs + 2 * settings.pyramid, width))
            inputs = width
        self.paint = nn.Conv2d(inputs, 3, 3, 1, 1)

    def forward(self, driving: Tensor, prior: Tensor, *target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.settings.source == "picture":
            source = driving - 0.5
        else:
            source = F.interpolate(driving, scale_factor=float(STRIDE), mode="bilinear", align_corners=False)
        levels = [torch.cat(pair, 1) for pair in zip(self.source(source), target, strict=True)]
        x = self.decode[0](levels[-1])
        for block, level in zip(list(self.decode)[1:], reversed(levels[:-1]), strict=True):
            x = block(torch.cat([up(x), level], 1))
        colour = torch.sigmoid(self.paint(up(x)))
        return prior * 0, colour[:, :1] * 0, colour
