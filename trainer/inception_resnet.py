"""Inception-ResNet-v2 (Szegedy et al. 2016), the thesis's backbone, by the names of its public ImageNet weights
(Cadene's, and timm's). Every 3x3 step is padded, so that the five levels lie at strides 2, 4, 8, 16 and 32."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.inception import Convolution, Kernel

LEVELS = {"conv2d_2b": 64, "conv2d_4a": 192, "repeat": 320, "repeat_1": 1088, "conv2d_7b": 1536}  # channels


def _path(inputs: int, *steps: tuple[int, Kernel], stride: int = 1) -> nn.Module:
    """Convolutions one after another; the last has the stride. One alone is named without a number."""
    layers = []
    for number, (outputs, kernel) in enumerate(steps, 1):
        layers.append(Convolution(inputs, outputs, kernel, stride if number == len(steps) else 1))
        inputs = outputs
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


class Branches(nn.Module):
    """Paths side by side, concatenated."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.count = len(branches)
        for number, branch in enumerate(branches):
            self.add_module(f"branch{number}", branch)

    def side_by_side(self, x: Tensor) -> Tensor:
        return torch.cat([self.get_submodule(f"branch{number}")(x) for number in range(self.count)], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.side_by_side(x)


class Scaled(Branches):
    """Paths side by side, brought to the input's width, scaled and added to it."""

    def __init__(self, width: int, joined: int, scale: float, *branches: nn.Module, relu: bool = True) -> None:
        super().__init__(*branches)
        self.conv2d = nn.Conv2d(joined, width, 1)
        self.scale, self.relu = scale, relu

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.scale * self.conv2d(self.side_by_side(x))
        return F.relu(y) if self.relu else y


def _block35() -> Scaled:
    paths = _path(320, (32, 1)), _path(320, (32, 1), (32, 3)), _path(320, (32, 1), (48, 3), (64, 3))
    return Scaled(320, 128, 0.17, *paths)


def _block17() -> Scaled:
    return Scaled(1088, 384, 0.10, _path(1088, (192, 1)), _path(1088, (128, 1), (160, (1, 7)), (192, (7, 1))))


def _block8(scale: float = 0.20, relu: bool = True) -> Scaled:
    paths = _path(2080, (192, 1)), _path(2080, (192, 1), (224, (1, 3)), (256, (3, 1)))
    return Scaled(2080, 448, scale, *paths, relu=relu)


class InceptionResNet(nn.Module):
    """Pictures (B, C, S, S), in [-1, 1] if they are pictures -> five feature maps of LEVELS' channels."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv2d_1a = Convolution(channels, 32, 3, 2)
        self.conv2d_2a = Convolution(32, 32, 3)
        self.conv2d_2b = Convolution(32, 64, 3)
        self.maxpool_3a = nn.MaxPool2d(3, 2, 1)
        self.conv2d_3b = Convolution(64, 80, 1)
        self.conv2d_4a = Convolution(80, 192, 3)
        self.maxpool_5a = nn.MaxPool2d(3, 2, 1)
        average = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), Convolution(192, 64, 1))
        paths = _path(192, (96, 1)), _path(192, (48, 1), (64, 5)), _path(192, (64, 1), (96, 3), (96, 3))
        self.mixed_5b = Branches(*paths, average)
        self.repeat = nn.Sequential(*(_block35() for _ in range(10)))
        paths = (
            _path(320, (384, 3), stride=2),
            _path(320, (256, 1), (256, 3), (384, 3), stride=2),
            nn.MaxPool2d(3, 2, 1),
        )
        self.mixed_6a = Branches(*paths)
        self.repeat_1 = nn.Sequential(*(_block17() for _ in range(20)))
        self.mixed_7a = Branches(
            _path(1088, (256, 1), (384, 3), stride=2),
            _path(1088, (256, 1), (288, 3), stride=2),
            _path(1088, (256, 1), (288, 3), (320, 3), stride=2),
            nn.MaxPool2d(3, 2, 1),
        )
        self.repeat_2 = nn.Sequential(*(_block8() for _ in range(9)))
        self.block8 = _block8(1.0, relu=False)
        self.conv2d_7b = Convolution(2080, 1536, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = []
        for name, module in self.named_children():
            x = module(x)
            if name in LEVELS:
                levels.append(x)
        return levels
