"""Public weight files: the published layouts load, others are named; and the distance of two sets of pictures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from realtime.errors import InputError
from trainer.fid import distance, frechet_distance, inception
from trainer.fpn import BACKBONES, FpnSettings, Pyramid
from trainer.inception import Inception
from trainer.inception_resnet import LEVELS, InceptionResNet
from trainer.weights import ARCFACE, VGG19, ArcFace, Vgg19, content_features, identity_features, load_public

# Parameters of the published networks without their classifiers, and tensors that their files hold.
PUBLISHED: list[tuple[Callable[[], nn.Module], int, dict[str, tuple[int, ...]]]] = [
    (Vgg19, 1_735_488, {"features.0.weight": (64, 3, 3, 3), "features.14.bias": (256,)}),
    (
        ArcFace,
        43_797_696,
        {
            "input_layer.2.weight": (64,),
            "body.0.res_layer.5.fc1.weight": (4, 64, 1, 1),
            "body.3.shortcut_layer.0.weight": (128, 64, 1, 1),
            "body.23.res_layer.3.weight": (512, 512, 3, 3),
            "output_layer.3.weight": (512, 25088),
        },
    ),
    (
        Inception,
        21_785_568,
        {
            "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
            "Mixed_5b.branch_pool.bn.running_var": (32,),
            "Mixed_6a.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
            "Mixed_6e.branch7x7dbl_5.conv.weight": (192, 192, 1, 7),
            "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
            "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        },
    ),
    (
        InceptionResNet,
        54_306_464,
        {
            "conv2d_1a.conv.weight": (32, 3, 3, 3),
            "mixed_5b.branch3.1.conv.weight": (64, 192, 1, 1),
            "repeat.9.branch2.2.conv.weight": (64, 48, 3, 3),
            "mixed_6a.branch0.bn.weight": (384,),
            "repeat_1.19.branch1.1.conv.weight": (160, 128, 1, 7),
            "mixed_7a.branch2.2.conv.weight": (320, 288, 3, 3),
            "block8.conv2d.bias": (2080,),
            "conv2d_7b.bn.running_mean": (1536,),
        },
    ),
]


@pytest.mark.parametrize(("network", "parameters", "tensors"), PUBLISHED, ids=lambda v: getattr(v, "__name__", ""))
def test_networks_have_the_published_layout(
    network: Callable[[], nn.Module], parameters: int, tensors: dict[str, tuple[int, ...]]
) -> None:
    with torch.device("meta"):
        made = network()
    assert sum(p.numel() for p in made.parameters()) == parameters
    state = made.state_dict()
    assert {name: tuple(state[name].shape) for name in tensors} == tensors


@pytest.fixture(scope="module")
def vgg19(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as torchvision publishes it: with a classifier that is not needed."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "vgg19.pth"
    torch.save(
        {**Vgg19().state_dict(), "features.16.weight": torch.zeros(2), "classifier.0.bias": torch.zeros(2)}, path
    )
    return path


def test_a_public_file_loads(vgg19: Path) -> None:
    name, features = content_features(vgg19)
    assert name == f"{VGG19}, from vgg19.pth"
    pictures = torch.rand(2, 3, 32, 32, requires_grad=True)
    made = features(pictures)
    assert made.shape == (2, 256, 8, 8)
    assert made.min() == 0  # after the ReLU
    made.sum().backward()  # it passes gradients on, and does not learn
    assert pictures.grad is not None
    state = torch.load(vgg19, weights_only=True)
    own = Vgg19()
    load_public(own, vgg19, VGG19)
    assert torch.equal(own.state_dict()["features.10.weight"], state["features.10.weight"])


def test_an_old_or_wrapped_file_loads(tmp_path: Path) -> None:
    state = nn.BatchNorm2d(4).state_dict() | {"running_mean": torch.full((4,), 3.0)}
    del state["num_batches_tracked"]  # as before PyTorch 0.4
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "old.pth")
    norm = nn.BatchNorm2d(4)
    load_public(norm, tmp_path / "old.pth", "a norm")
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == [3.0] * 4


def test_other_files_are_named(vgg19: Path, tmp_path: Path) -> None:
    state = torch.load(vgg19, weights_only=True)
    lacking, odd, torn = (tmp_path / f"{name}.pth" for name in ("lacking", "odd", "torn"))
    torch.save({name: value for name, value in state.items() if name != "features.5.bias"}, lacking)
    torch.save(state | {"features.5.bias": torch.zeros(3)}, odd)
    torn.write_bytes(vgg19.read_bytes()[:1000])
    for path, said in (
        (lacking, r"lacking\.pth lacks features\.5\.bias: the weights of VGG19"),
        (odd, r"odd\.pth has features\.5\.bias of shape \(3,\), not \(128,\)"),
        (torn, r"torn\.pth is not a PyTorch state dictionary"),
        (tmp_path / "none.pth", r"there is no .*none\.pth"),
    ):
        with pytest.raises(InputError, match=said):
            content_features(path)
    with pytest.raises(InputError, match=r"vgg19\.pth lacks input_layer.*InsightFace"):
        identity_features(vgg19)
    with pytest.raises(InputError, match=r"vgg19\.pth lacks Conv2d_1a_3x3.*pytorch-fid"):
        inception(vgg19)
    assert ARCFACE


def test_arcface_embeds_crops() -> None:
    torch.manual_seed(0)
    embedded = ArcFace().eval()(torch.rand(2, 3, 128, 128))
    assert embedded.shape == (2, 512)
    assert embedded.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-4)


def test_arcface_sees_eyes_and_mouth_where_it_learnt_them() -> None:
    """The crop's template, cut and scaled, lies within two pixels of InsightFace's for 112 pixels."""
    from realtime.alignment import TEMPLATE

    theirs = np.array([[38.29, 51.70], [73.53, 51.50], [56.03, 71.74], [41.55, 92.37], [70.73, 92.20]])
    start = np.array([ArcFace.COLUMNS.start, ArcFace.ROWS.start])
    scale = 112 / (ArcFace.ROWS.stop - ArcFace.ROWS.start)
    assert np.abs((TEMPLATE - start) * scale - theirs).max() < 4
    assert np.abs((TEMPLATE - start) * scale - theirs)[:2].max() < 1


def test_backbones_have_five_levels_and_load(tmp_path: Path) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        levels = InceptionResNet().eval()(torch.rand(1, 3, 64, 64))
    assert [tuple(level.shape) for level in levels] == [
        (1, width, 32 // 2**n, 32 // 2**n) for n, width in enumerate(LEVELS.values())
    ]
    assert BACKBONES["inception_resnet_v2"].widths == tuple(LEVELS.values())
    small = replace(FpnSettings((8, 8, 12, 16, 16), (1, 1, 1, 1), 8, (8,) * 5), normalization="batch")
    pictures, heatmaps = Pyramid(small, 3), Pyramid(small, 56)
    torch.save({**pictures.backbone.state_dict(), "fc.weight": torch.zeros(1000, 16)}, tmp_path / "resnet.pth")
    first = heatmaps.backbone.state_dict()["conv1.weight"].clone()
    assert "ResNet-18" in heatmaps.load_backbone(tmp_path / "resnet.pth")
    for name, value in heatmaps.backbone.state_dict().items():
        assert torch.equal(value, first if name == "conv1.weight" else pictures.backbone.state_dict()[name])
    with pytest.raises(InputError, match=r"resnet\.pth has conv1\.weight of shape"):
        Pyramid(BACKBONES["resnet18"], 3).load_backbone(tmp_path / "resnet.pth")


def test_frechet_distance() -> None:
    a, b = np.array([[0.0], [2]]), np.array([[1.0], [5]])  # means 1 and 3, variances 2 and 8
    assert frechet_distance(a, b) == pytest.approx(4 + 2 + 8 - 2 * 4)
    a = np.array([[0.0, 0], [2, 0], [0, 4], [2, 4]])  # covariance diag(4/3, 16/3)
    assert frechet_distance(a, a + [3, 4]) == pytest.approx(25)
    assert frechet_distance(a, a[:, ::-1]) == pytest.approx(2 + 2 * (20 / 3) - 4 * np.sqrt(64 / 9))
    assert np.isnan(frechet_distance(a[:1], a))


def test_frechet_distance_is_that_of_the_covariances_roots() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 6)), rng.normal(size=(30, 6)) @ rng.normal(size=(6, 6))
    root = sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_fid_of_pictures(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(Inception().state_dict() | {"fc.bias": torch.zeros(1008)}, tmp_path / "inception.pth")
    describe = inception(tmp_path / "inception.pth")
    rng = np.random.default_rng(0)
    real = [rng.integers(0, 256, (64, 64, 3)).astype(np.uint8) for _ in range(2)]
    assert describe(real).shape == (2, 2048)
    assert distance(real, real, describe) == pytest.approx(0, abs=1e-6)
    assert not np.array_equal(describe([real[0] // 2]), describe([real[0]]))
    assert np.isnan(distance(real, real, None))
