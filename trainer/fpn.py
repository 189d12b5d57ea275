"""The thesis's generator (4.3.1): two feature pyramids that share no weights, and one decoder that paints the picture.

It stands behind the same two graphs as the generator that ships: the target's pyramid is the encoder, the source's
pyramid and the decoder are the generator, which takes all of the picture from its colour and moves nothing.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realtime.landmarks import COUNT, STRIDE
from trainer.detector import IMAGENET_MEAN, IMAGENET_STD, ResNet
from trainer.generator import up
from trainer.inception_resnet import LEVELS, InceptionResNet
from trainer.weights import load_public

RESNET = "ResNet-18 of torchvision (resnet18-f37072fd.pth)"
INCEPTION_RESNET = "Inception-ResNet-v2 of Cadene (inceptionresnetv2-520b38e4.pth) or timm"


@dataclass(frozen=True)
class FpnSettings:
    """Channels of the backbones' five levels, blocks of a ResNet's stages (none: it is Inception-ResNet-v2, whose
    channels are its own), channels of each pyramid's levels, and of the decoder's.

    `source`: what the generator sees of the source, its heatmaps, or its picture as in the thesis, which no bundle can
    hold: the live program hands over landmarks. `normalization` of the backbones: instance, as the thesis has it for
    its single pairs, or batch, whose statistics come with public weights and stay.
    """

    widths: tuple[int, ...] = (64, 64, 128, 256, 512)
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    pyramid: int = 64
    decoder: tuple[int, ...] = (128, 128, 96, 64, 48)
    source: str = "heatmaps"
    normalization: str = "instance"


BACKBONES = {
    "inception_resnet_v2": FpnSettings(tuple(LEVELS.values()), ()),
    "resnet18": FpnSettings(),
    "small": FpnSettings((16, 24, 48, 96, 160), (1, 1, 1, 1), 32, (64, 64, 48, 32, 24)),  # for CPUs
}


class Pyramid(nn.Module):
    """Feature Pyramid Network (Lin et al. 2016): (B, C, S, S) in [0, 1] -> five maps at strides 2, 4, 8, 16 and 32."""

    def __init__(self, settings: FpnSettings, inputs: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.backbone: nn.Module = (
            ResNet(settings.widths, settings.blocks, inputs) if settings.blocks else InceptionResNet(inputs)
        )
        if settings.normalization == "instance":
            _by_instance(self.backbone)
        self.lateral = nn.ModuleList(nn.Conv2d(width, settings.pyramid, 1) for width in settings.widths)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.inputs == 3:  # as the backbones' public weights want it
            mean, std = (IMAGENET_MEAN, IMAGENET_STD) if isinstance(self.backbone, ResNet) else ((0.5,) * 3, (0.5,) * 3)
            x = (x - x.new_tensor(mean).view(1, 3, 1, 1)) / x.new_tensor(std).view(1, 3, 1, 1)
        levels = [lateral(level) for lateral, level in zip(self.lateral, self.backbone(x), strict=True)]
        for index in range(len(levels) - 2, -1, -1):
            levels[index] = levels[index] + up(levels[index + 1])
        return tuple(levels)

    def load_backbone(self, path: Path) -> str:
        """Load public ImageNet weights; the first convolution stays as it is if it reads heatmaps. Returns what they
        are. Raises InputError if they do not fit."""
        of = RESNET if isinstance(self.backbone, ResNet) else INCEPTION_RESNET
        first = next(iter(self.backbone.state_dict()))
        load_public(self.backbone, path, of, besides=() if self.inputs == 3 else (first,))
        return of


def _by_instance(module: nn.Module) -> None:
    """Batch normalization replaced by instance normalization, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.InstanceNorm2d(child.num_features, affine=True))
        _by_instance(child)


class FpnTargetEncoder(nn.Module):
    """Photo crop (B, 3, S, S) in [0, 1] -> its pyramid.

    The thesis's target side does not look at landmarks: times nothing, they stay an input of the exported graph.
    """

    outputs = ("stride2", "stride4", "stride8", "stride16", "stride32")

    def __init__(self, settings: FpnSettings = FpnSettings()) -> None:
        super().__init__()
        self.pyramid = Pyramid(settings, 3)

    def forward(self, photo: Tensor, heatmaps: Tensor) -> tuple[Tensor, ...]:
        at2, at4, *rest = self.pyramid(photo)
        return at2, at4 + 0 * heatmaps[:, :1], *rest


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in ((inputs, outputs), (outputs, outputs)):
        layers += [nn.Conv2d(a, b, 3, 1, 1, bias=False), nn.InstanceNorm2d(b, affine=True), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class FpnGenerator(nn.Module):
    """The source as driving heatmaps (B, 56, S/4, S/4), or its crop (B, 3, S, S) in [0, 1]; a prior (B, 3, S/2,
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
            source = driving
        else:
            source = F.interpolate(driving, scale_factor=float(STRIDE), mode="bilinear", align_corners=False)
        levels = [torch.cat(pair, 1) for pair in zip(self.source(source), target, strict=True)]
        x = self.decode[0](levels[-1])
        for block, level in zip(list(self.decode)[1:], reversed(levels[:-1]), strict=True):
            x = block(torch.cat([up(x), level], 1))
        colour = torch.sigmoid(self.paint(up(x)))
        return prior[:, :2] * 0, colour[:, :1] * 0, colour
