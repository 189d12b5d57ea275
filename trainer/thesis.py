"""The thesis's losses, each with its equation number. Scores are a discriminator's, of any shape; all return a scalar.

The adversarial pairs are (of the discriminator, of the generator), functions of the scores of real and generated
pictures, each with its landmark channel (4.1.2).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from realtime.landmarks import CROP_SIZE
from trainer.losses import lsgan
from trainer.train_detector import iou_loss

Score = Callable[[Tensor], Tensor]
Adversarial = Callable[[Tensor, Tensor], Tensor]


def landmark_loss(of_result: Tensor, of_source: Tensor) -> Tensor:
    """Equation 4.1: 1 - IoU of the frozen detector's heatmaps (B, 56, S, S) of result and source."""
    return iou_loss(of_result, of_source)


def full_size(picture: Tensor) -> Tensor:
    """At the size that detectors know: (B, 3, S, S) -> (B, 3, 256, 256)."""
    return F.interpolate(picture.float(), size=(CROP_SIZE, CROP_SIZE), mode="bilinear", align_corners=False)


def identity_loss(of_result: Tensor, of_target: Tensor) -> Tensor:
    """Equation 4.3: squared distance of two face embeddings (B, N), mean over the batch."""
    return (of_result - of_target).square().sum(1).mean()


def content_loss(result: Tensor, target: Tensor, of_result: Tensor, of_target: Tensor) -> Tensor:
    """Equation 4.5 of pictures (B, 3, S, S) and of their features, VGG19's relu3_3 or what stands in for it."""
    return 0.06 * F.mse_loss(of_result, of_target) + 0.5 * F.mse_loss(result, target)


def ralsgan_discriminator(real: Tensor, made: Tensor) -> Tensor:
    """Equation 4.4: the relativistic average least-squares GAN's discriminator."""
    return (real - made.mean() - 1).square().mean() + (made - real.mean() + 1).square().mean()


def ralsgan_generator(real: Tensor, made: Tensor) -> Tensor:
    """Equation 4.6."""
    return (real - made.mean() + 1).square().mean() + (made - real.mean() - 1).square().mean()


def lsgan_discriminator(real: Tensor, made: Tensor) -> Tensor:
    """Mao et al. 2016, equation 9: 1 for real pictures, 0 for generated ones."""
    return (lsgan(real, real=True) + lsgan(made, real=False)) / 2


def lsgan_generator(_real: Tensor, made: Tensor) -> Tensor:
    return lsgan(made, real=True) / 2


def ragan_discriminator(real: Tensor, made: Tensor) -> Tensor:
    """Jolicoeur-Martineau 2018: -log sigmoid of how much more real than the average of the others, both ways."""
    return F.softplus(-(real - made.mean())).mean() + F.softplus(made - real.mean()).mean()


def ragan_generator(real: Tensor, made: Tensor) -> Tensor:
    return ragan_discriminator(made, real)


def wgan_discriminator(real: Tensor, made: Tensor) -> Tensor:
    """Arjovsky et al. 2017; `gradient_penalty` comes on top."""
    return made.mean() - real.mean()


def wgan_generator(_real: Tensor, made: Tensor) -> Tensor:
    return -made.mean()


def gradient_penalty(score: Score, real: Tensor, made: Tensor, share: Tensor, weight: float = 10.0) -> Tensor:
    """Gulrajani et al. 2017: the score's gradient should have length 1 between real and generated pictures.

    `share` (B, 1, 1, 1) in [0, 1] says where between them. A picture's score is the mean of its patches'.
    """
    between = (share * real + (1 - share) * made).detach().requires_grad_(True)
    scores = score(between).reshape(len(between), -1).mean(1)
    (gradient,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
    return weight * (gradient.flatten(1).norm(dim=1) - 1).square().mean()


# Studies of section 5.5: name -> (of the discriminator, of the generator).
ADVERSARIAL: dict[str, tuple[Adversarial, Adversarial]] = {
    "ralsgan": (ralsgan_discriminator, ralsgan_generator),
    "lsgan": (lsgan_discriminator, lsgan_generator),
    "ragan": (ragan_discriminator, ragan_generator),
    "wgan": (wgan_discriminator, wgan_generator),
}


@dataclass(frozen=True)
class Coefficients:
    """Scales of the full objective, equation 4.7, as section 5.3.1 found them."""

    content: float = 0.01
    adversarial: float = 0.1
    identity: float = 0.001
    landmark: float = 0.0


WITH_DISCRIMINATOR = Coefficients()
WITH_LANDMARK_LOSS = Coefficients(adversarial=0.001, landmark=2.0)


def objective(
    scales: Coefficients, content: Tensor, adversarial: Tensor, identity: Tensor, landmark: Tensor | None = None
) -> Tensor:
    """Equation 4.7; with the landmark loss, that is added (4.6, last paragraph but one)."""
    total = scales.content * content + scales.adversarial * adversarial + scales.identity * identity
    return total if landmark is None else total + scales.landmark * landmark


def freeze(module: nn.Module) -> nn.Module:
    """A module that judges and does not learn: its weights take no gradient, its input does."""
    return module.eval().requires_grad_(False)
