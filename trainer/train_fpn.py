"""Training the thesis's generator with its objective (4.7), on the pairs that the shipping one is trained on."""

from dataclasses import dataclass, field

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from realtime.landmarks import CROP_SIZE
from trainer.data import Pictures
from trainer.detector import Detector
from trainer.fpn import FpnGenerator, FpnSettings, FpnTargetEncoder
from trainer.generator import compose
from trainer.loop import optimize
from trainer.losses import PatchDiscriminator, landmark_channel
from trainer.thesis import (
    ADVERSARIAL,
    WITH_DISCRIMINATOR,
    Coefficients,
    content_loss,
    freeze,
    gradient_penalty,
    landmark_loss,
)
from trainer.train_generator import GeneratorTask, GeneratorTraining


@dataclass(frozen=True)
class FpnTraining:
    """Size of the crops, one of the four GAN losses of section 5.5, and the scales of the objective."""

    generator: str = "fpn"
    size: int = 256
    adversary: str = "ralsgan"
    scales: Coefficients = WITH_DISCRIMINATOR
    skip: dict[str, tuple[int, int]] = field(default_factory=dict)
    network: FpnSettings = field(default_factory=FpnSettings)


class FpnTask(GeneratorTask):
    """The thesis's generator against its landmark discriminator.

    A frozen landmark detector judges expressions (4.1), and its encoder stands in for VGG19 in the content loss (4.5).
    The identity loss (4.3) takes a face-recognition network that does not come with the project, and is left out.
    """

    def __init__(self, pictures: Pictures, settings: FpnTraining, learning_rate: float, judge: Detector) -> None:
        networks: dict[str, nn.Module] = {
            "encoder": FpnTargetEncoder(settings.network),
            "generator": FpnGenerator(settings.network),
            "discriminator": PatchDiscriminator(64),
        }
        for module in networks.values():
            module.apply(_xavier)
        painter = [*networks["encoder"].parameters(), *networks["generator"].parameters()]
        optimizers: dict[str, torch.optim.Optimizer] = {
            "generator": torch.optim.Adam(painter, learning_rate),
            "discriminator": torch.optim.Adam(networks["discriminator"].parameters(), learning_rate),
        }
        super().__init__(pictures, GeneratorTraining(settings.size, skip=settings.skip), learning_rate)
        self.training, self.settings = settings, settings  # type: ignore[assignment]
        self.modules, self.optimizers = networks, optimizers
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["initial_lr"] = learning_rate
        self.judge = freeze(judge)

    def schedule(self, progress: float) -> float:
        """Constant for 40 of 250 epochs, then linearly down to a thousandth (5.3.1)."""
        return 1 - 0.999 * max(0.0, progress - 0.16) / 0.84

    def _features(self, picture: Tensor) -> Tensor:
        return torch.as_tensor(self.judge.features(picture)[2])  # type: ignore[operator]

    def _heatmaps(self, picture: Tensor) -> Tensor:
        full = F.interpolate(picture, size=(CROP_SIZE, CROP_SIZE), mode="bilinear", align_corners=False)
        return torch.as_tensor(self.judge(full))

    def step(self, batch: dict[str, Tensor], progress: float, fabric: Fabric) -> dict[str, float]:  # noqa: ARG002
        self.judge.to(fabric.device)
        for name in self.ema:
            self.modules[name].train()
        inputs = self._inputs(batch)
        truth, photo = batch["truth"].float() / 255, inputs["photo"]
        with fabric.autocast():
            flow, mask, colour = self.forward(self.modules, inputs)
        result = compose(photo, flow, mask, colour, self.window.to(photo.device))
        channel = landmark_channel(inputs["driving"], truth.shape[-1])
        real, made = torch.cat([truth, channel], 1), torch.cat([result, channel], 1)
        of_discriminator, of_generator = ADVERSARIAL[self.training.adversary]
        scales = self.training.scales
        score = self.modules["discriminator"]
        loss = of_discriminator(score(real), score(made.detach()))
        if self.training.adversary == "wgan":
            share = torch.rand(len(real), 1, 1, 1, device=real.device)
            loss = loss + gradient_penalty(score, real, made, share)
        optimize(fabric, self.optimizers["discriminator"], loss, clip=None)
        losses = {
            "content": scales.content * content_loss(result, photo, self._features),
            "adversarial": scales.adversarial * of_generator(score(real), score(made)),
        }
        if scales.landmark:
            losses["landmark"] = scales.landmark * landmark_loss(self._heatmaps(result), self._heatmaps(truth))
        optimize(fabric, self.optimizers["generator"], torch.stack(list(losses.values())).sum(), clip=None)
        return {name: value.item() for name, value in losses.items()} | {"discriminator": loss.item()}


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
