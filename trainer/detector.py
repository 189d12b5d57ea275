"""The landmark detector: the thesis's U-Net (4.2.2), a ResNet encoder and a bilinear decoder to 56 heatmaps."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realtime.landmarks import COUNT

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DetectorSettings:
    """Widths of the stem and the four residual stages, blocks per stage, decoder widths, heatmap stride and sigma, and
    the side of the last convolution's kernel."""

    widths: tuple[int, ...] = (64, 64, 128, 256, 512)
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    decoder: tuple[int, ...] = (256, 128, 64, 48, 32)
    projected: int = 16  # channels that each decoder level brings to the last convolution
    stride: int = 1  # crop pixels per heatmap cell
    sigma: float = 6.0  # of a landmark's Gaussian, in crop pixels
    last: int = 3
    loss: str = "live"  # one of trainer.train_detector's LOSSES: the thesis's is iou


BACKBONES = {"resnet18": (64, 64, 128, 256, 512), "narrow": (16, 24, 48, 96, 160)}  # widths, of eight blocks in each
THESIS = DetectorSettings(loss="iou")
LIVE = DetectorSettings(BACKBONES["narrow"], (2, 2, 2, 2), (96, 64, 32), 16, stride=4, last=1)
PRESETS = {"thesis": THESIS, "live": LIVE}


class BasicBlock(nn.Module):
    """Residual block of ResNet-18 (He et al. 2016), with torchvision's names so that public weights load."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """ResNet encoder: five feature maps at strides 2, 4, 8, 16 and 32."""

    def __init__(self, widths: tuple[int, ...], blocks: tuple[int, ...], channels: int = 3) -> None:
        super().__init__()
        stem, *stages = widths
        self.conv1 = nn.Conv2d(channels, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        inputs = stem
        for stage, (width, count) in enumerate(zip(stages, blocks, strict=True), 1):
            strides = [1 if stage == 1 else 2] + [1] * (count - 1)
            layers = [BasicBlock(inputs if i == 0 else width, width, s) for i, s in enumerate(strides)]
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
            inputs = width

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu(self.bn1(self.conv1(x)))
        levels = [x]
        x = F.max_pool2d(x, 3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)  # type: ignore[operator]  # set by name
            levels.append(x)
        return levels


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True))


class Detector(nn.Module):
    """Crops (B, 3, 256, 256) in [0, 1] -> heatmaps (B, 56, 256 / stride, 256 / stride) in [0, 1]."""

    def __init__(self, settings: DetectorSettings = LIVE) -> None:
        super().__init__()
        self.settings = settings
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.encoder = ResNet(settings.widths, settings.blocks)
        skips = [*reversed(settings.widths[:-1]), 0]  # strides 16, 8, 4, 2, and the picture's own resolution
        inputs = settings.widths[-1]
        self.up = nn.ModuleList()
        for width, skip in zip(settings.decoder, skips, strict=False):
            self.up.append(nn.Sequential(_convolution(inputs + skip, width), _convolution(width, width)))
            inputs = width
        levels = (settings.widths[-1], *settings.decoder) if settings.stride > 1 else settings.decoder
        self.project = nn.ModuleList(nn.Conv2d(width, settings.projected, 1) for width in levels)
        self.last = nn.Conv2d(settings.projected * len(levels), COUNT, settings.last, 1, settings.last // 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.constant_(self.last.bias, -4.0)  # type: ignore[arg-type]  # heatmaps are mostly zero

    def features(self, crops: Tensor) -> list[Tensor]:
        """The encoder's five feature maps: the content loss's stand-in for VGG19."""
        return self.encoder((crops - self.mean) / self.std)

    def logits(self, crops: Tensor) -> Tensor:
        """Heatmaps before the sigmoid."""
        *skips, x = self.features(crops)
        levels = [x] if self.settings.stride > 1 else []
        for index, block in enumerate(self.up):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            if index < len(skips):
                x = torch.cat([x, skips[-1 - index]], 1)
            x = block(x)
            levels.append(x)
        size = x.shape[-2:]
        projected = [
            F.interpolate(p(level), size=size, mode="bilinear", align_corners=False)
            if level.shape[-2:] != size
            else p(level)
            for p, level in zip(self.project, levels, strict=True)
        ]
        return self.last(torch.cat(projected, 1))

    def forward(self, crops: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(crops))
