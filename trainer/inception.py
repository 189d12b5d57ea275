"""Inception v3 as the Frechet inception distance uses it, by pytorch-fid's names, so that its public weights load.

It differs from the network of Szegedy et al. 2015 in its pools: averages leave the padding out, and the last one is a
maximum. (torchvision has the same layers; its Linux package does not load beside a CPU build of PyTorch.)
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Kernel = int | tuple[int, int]
Step = tuple[str, int, Kernel]  # name, channels, kernel


class Convolution(nn.Module):
    """Convolution, batch normalization with TensorFlow's epsilon, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, stride: int = 1, same: bool = True) -> None:
        super().__init__()
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (size[0] // 2, size[1] // 2) if same else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
half = partial(F.max_pool2d, kernel_size=3, stride=2)


class Mixed(nn.Module):
    """Paths of convolutions beside a pool, concatenated. A step may be two: the path then ends in a fork.

    With `pooled` channels the pool is followed by a convolution; without, the pool and each path's end halve the map.
    """

    def __init__(self, inputs: int, paths: list[list[Step | list[Step]]], pooled: int = 0, last: bool = False) -> None:
        super().__init__()
        self.paths: list[list[list[str]]] = []
        for path in paths:
            width, names = inputs, []
            for number, step in enumerate(path, 1):
                forks = step if isinstance(step, list) else [step]
                halves = not pooled and number == len(path)
                for name, outputs, kernel in forks:
                    self.add_module(name, Convolution(width, outputs, kernel, 2 if halves else 1, same=not halves))
                names.append([name for name, _, _ in forks])
                width = forks[0][1]
            self.paths.append(names)
        self.pool = (maximum if last else average) if pooled else half
        self.branch_pool = Convolution(inputs, pooled, 1) if pooled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        made = []
        for path in self.paths:
            ends = [x]
            for names in path:
                ends = [self.get_submodule(name)(ends[0]) for name in names]
            made += ends
        return torch.cat([*made, self.branch_pool(self.pool(x))], 1)


def _a(inputs: int, pooled: int) -> Mixed:
    twice: list[Step | list[Step]] = [
        (f"branch3x3dbl_{n}", width, k) for n, width, k in ((1, 64, 1), (2, 96, 3), (3, 96, 3))
    ]
    return Mixed(inputs, [[("branch1x1", 64, 1)], [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)], twice], pooled)


def _b(inputs: int) -> Mixed:
    twice: list[Step | list[Step]] = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]
    return Mixed(inputs, [[("branch3x3", 384, 3)], twice])


def _c(width: int) -> Mixed:
    once: list[Step | list[Step]] = [
        ("branch7x7_1", width, 1),
        ("branch7x7_2", width, (1, 7)),
        ("branch7x7_3", 192, (7, 1)),
    ]
    kernels: tuple[Kernel, ...] = (1, (7, 1), (1, 7), (7, 1), (1, 7))
    twice: list[Step | list[Step]] = [
        (f"branch7x7dbl_{n}", 192 if n == 5 else width, kernel) for n, kernel in enumerate(kernels, 1)
    ]
    return Mixed(768, [[("branch1x1", 192, 1)], once, twice], 192)


def _d() -> Mixed:
    kernels: tuple[Kernel, ...] = (1, (1, 7), (7, 1), 3)
    long: list[Step | list[Step]] = [(f"branch7x7x3_{n}", 192, kernel) for n, kernel in enumerate(kernels, 1)]
    return Mixed(768, [[("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)], long])


def _e(inputs: int, last: bool = False) -> Mixed:
    def fork(name: str) -> list[Step]:
        return [(f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1))]

    once: list[Step | list[Step]] = [("branch3x3_1", 384, 1), fork("branch3x3_2")]
    twice: list[Step | list[Step]] = [("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3), fork("branch3x3dbl_3")]
    return Mixed(inputs, [[("branch1x1", 320, 1)], once, twice], 192, last)


class Inception(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] -> the last pool's features (B, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        valid = partial(Convolution, same=False)
        self.Conv2d_1a_3x3 = valid(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = valid(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = valid(64, 80, 1)
        self.Conv2d_4a_3x3 = valid(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32), _a(256, 64), _a(288, 64)
        self.Mixed_6a = _b(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = _c(128), _c(160), _c(160), _c(192)
        self.Mixed_7a = _d()
        self.Mixed_7b, self.Mixed_7c = _e(1280), _e(2048, last=True)

    def forward(self, pictures: Tensor) -> Tensor:
        x = 2 * F.interpolate(pictures, size=(299, 299), mode="bilinear", align_corners=False) - 1
        x = half(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = half(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for name, module in self.named_children():
            if name.startswith("Mixed"):
                x = module(x)
        return x.mean((2, 3))
