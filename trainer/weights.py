"""Public weights, from files that the user names: they are not the project's to ship.

A file is what the network's authors publish, a PyTorch state dictionary. It may hold more than is needed, a classifier
say, but every tensor that is needed must be there in its shape.
"""

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from zipfile import BadZipFile

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realtime.errors import InputError
from realtime.landmarks import CROP_SIZE
from trainer.detector import IMAGENET_MEAN, IMAGENET_STD

VGG19 = "VGG19 of torchvision (vgg19-dcbb9e9d.pth)"
ARCFACE = "ArcFace's SE-ResNet-50 of InsightFace_Pytorch (model_ir_se50.pth)"


def load_public(module: nn.Module, path: Path, of: str, besides: tuple[str, ...] = ()) -> None:
    """Load a public weight file into a module, `besides` the tensors named, which stay as they are.

    Raises InputError, naming the file and the tensor, if it cannot be read, lacks one, or has one of another shape.
    """
    if not path.is_file():
        raise InputError(f"there is no {path}: the weights of {of} are needed")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        there = {name.removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}
    except (OSError, RuntimeError, AttributeError, EOFError, UnpicklingError, BadZipFile) as error:
        raise InputError(f"{path} is not a PyTorch state dictionary of {of}: {type(error).__name__}") from error
    own = {name: value for name, value in module.state_dict().items() if name not in besides}
    for name, value in own.items():
        if name.endswith("num_batches_tracked"):  # files older than PyTorch 0.4 have none
            continue
        if name not in there:
            raise InputError(f"{path} lacks {name}: the weights of {of} are needed")
        if there[name].shape != value.shape:
            raise InputError(f"{path} has {name} of shape {tuple(there[name].shape)}, not {tuple(value.shape)}: "
                             f"the weights of {of} are needed")  # fmt: skip
    module.load_state_dict({name: there[name] for name in own if name in there}, strict=False)


class Vgg19(nn.Module):
    """VGG19 up to relu3_3 (Simonyan & Zisserman 2014): (B, 3, S, S) in [0, 1] -> (B, 256, S/4, S/4)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width, count in ((64, 2), (128, 2), (256, 3)):
            layers += [nn.MaxPool2d(2)] if inputs > 3 else []
            for _ in range(count):
                layers += [nn.Conv2d(inputs, width, 3, 1, 1), nn.ReLU(inplace=True)]
                inputs = width
        self.features = nn.Sequential(*layers)

    def forward(self, pictures: Tensor) -> Tensor:
        mean, std = (pictures.new_tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        return self.features((pictures - mean) / std)


class SqueezeExcitation(nn.Module):
    """Hu et al. 2017: channels weighted by what the whole map shows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(width // 16, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class Bottleneck(nn.Module):
    """Improved residual block of ArcFace (Deng et al. 2018) with squeeze and excitation."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            SqueezeExcitation(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class ArcFace(nn.Module):
    """Aligned crops (B, 3, S, S) in [0, 1] -> face embeddings (B, 512) of length 1."""

    # Rows and columns of the 256-pixel crop that its alignment to 112 pixels shows: eyes 35.2 pixels apart, not 64.
    ROWS, COLUMNS = slice(18, 222), slice(26, 230)

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        blocks, inputs = [], 64
        for width, count in ((64, 3), (128, 4), (256, 14), (512, 3)):
            for number in range(count):
                blocks.append(Bottleneck(inputs, width, 1 if number else 2))
                inputs = width
        self.body = nn.Sequential(*blocks)
        flat = 512 * 7 * 7
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512), nn.Dropout(0.6), nn.Flatten(), nn.Linear(flat, 512), nn.BatchNorm1d(512)
        )

    def forward(self, crops: Tensor) -> Tensor:
        full = F.interpolate(crops, size=(CROP_SIZE, CROP_SIZE), mode="bilinear", align_corners=False)
        face = full[..., self.ROWS, self.COLUMNS]
        face = F.interpolate(face, size=(112, 112), mode="bilinear", align_corners=False, antialias=True)
        return F.normalize(self.output_layer(self.body(self.input_layer(2 * face - 1))))


def _frozen(module: nn.Module, path: Path, of: str) -> tuple[str, Callable[[Tensor], Tensor]]:
    load_public(module, path, of)
    return f"{of}, from {path.name}", module.eval().requires_grad_(False)


def content_features(path: Path) -> tuple[str, Callable[[Tensor], Tensor]]:
    """VGG19's relu3_3 of a weight file, for the content loss (4.5), and its name. Raises InputError."""
    return _frozen(Vgg19(), path, VGG19)


def identity_features(path: Path) -> tuple[str, Callable[[Tensor], Tensor]]:
    """ArcFace's embedding of a weight file, for the identity loss (4.3), and its name. Raises InputError."""
    return _frozen(ArcFace(), path, ARCFACE)
