"""The thesis's losses against values worked out by hand."""

import math

import pytest
import torch

from trainer import thesis
from trainer.thesis import ADVERSARIAL

REAL, MADE = torch.tensor([1.0, 3.0]), torch.tensor([0.0, -2.0])  # means 2 and -1


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("name", "of_discriminator", "of_generator"),
    [
        # real - mean(made) = 2, 4; made - mean(real) = -2, -4
        ("ralsgan", (1 + 9) / 2 + (1 + 9) / 2, (9 + 25) / 2 + (9 + 25) / 2),
        ("lsgan", ((0 + 4) / 2 + (0 + 4) / 2) / 2, (1 + 9) / 2 / 2),
        ("ragan", softplus(-2) + softplus(-4), softplus(2) + softplus(4)),
        ("wgan", -1 - 2, 1),
    ],
)
def test_adversarial_losses(name: str, of_discriminator: float, of_generator: float) -> None:
    discriminator, generator = ADVERSARIAL[name]
    assert discriminator(REAL, MADE).item() == pytest.approx(of_discriminator)
    assert generator(REAL, MADE).item() == pytest.approx(of_generator)


def test_gradient_penalty_is_zero_for_a_slope_of_one() -> None:
    real, made, share = torch.rand(2, 4, 3, 3), torch.rand(2, 4, 3, 3), torch.rand(2, 1, 1, 1)
    slope = 1 / math.sqrt(4 * 3 * 3)  # in every value, so that the gradient's length is 1
    assert thesis.gradient_penalty(lambda x: slope * x.sum((1, 2, 3)), real, made, share).item() == pytest.approx(0)
    steep = thesis.gradient_penalty(lambda x: 3 * slope * x.sum((1, 2, 3)), real, made, share)
    assert steep.item() == pytest.approx(10 * (3 - 1) ** 2, rel=1e-4)
    patches = thesis.gradient_penalty(lambda x: slope * x.sum((1, 2, 3))[:, None].repeat(1, 9), real, made, share)
    assert patches.item() == pytest.approx(0)  # nine patches that say the same are one picture's score


def test_gradient_penalty_teaches_the_discriminator() -> None:
    layer = torch.nn.Linear(4, 1)
    penalty = thesis.gradient_penalty(layer, torch.rand(3, 4), torch.rand(3, 4), torch.rand(3, 1))
    penalty.backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().sum() > 0


def test_landmark_loss() -> None:
    a = torch.tensor([[[[1.0, 0.5]]]])
    b = torch.tensor([[[[0.5, 0.5]]]])
    assert thesis.landmark_loss(a, b).item() == pytest.approx(1 - 1 / (1.5 + 1 - 1), abs=1e-5)


def test_identity_loss() -> None:
    a, b = torch.tensor([[1.0, 2.0], [0, 0]]), torch.tensor([[0.0, 0.0], [0, 3]])
    assert thesis.identity_loss(a, b).item() == pytest.approx((5 + 9) / 2)


def test_content_loss() -> None:
    result, target = torch.full((1, 3, 2, 2), 0.5), torch.zeros(1, 3, 2, 2)
    total = thesis.content_loss(result, target, 2 * result, 2 * target)
    assert total.item() == pytest.approx(0.06 * 1 + 0.5 * 0.25)


def test_the_full_objective() -> None:
    content, adversarial, identity, landmark = (torch.tensor(v) for v in (10.0, 20.0, 30.0, 0.5))
    total = thesis.objective(thesis.WITH_DISCRIMINATOR, content, adversarial, identity)
    assert total.item() == pytest.approx(0.1 + 2 + 0.03)
    total = thesis.objective(thesis.WITH_LANDMARK_LOSS, content, adversarial, identity, landmark)
    assert total.item() == pytest.approx(0.1 + 0.02 + 0.03 + 1)


def test_a_frozen_judge_passes_gradients_on() -> None:
    judge = thesis.freeze(torch.nn.Linear(2, 1))
    x = torch.ones(1, 2, requires_grad=True)
    judge(x).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in judge.parameters())
