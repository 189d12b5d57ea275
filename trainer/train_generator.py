"""Training the generator that ships: first the flow at 128 pixels, then 256, the adversary last."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from realtime.landmarks import CROP_SIZE
from trainer.data import Pictures
from trainer.generator import Generator, GeneratorSettings, TargetEncoder, compose
from trainer.losses import (
    PatchDiscriminator,
    flow_error,
    gradient_difference,
    landmark_channel,
    landmark_weight,
    lsgan,
    pyramid_l1,
)
from trainer.pairs import Pairs, conditions


@dataclass(frozen=True)
class GeneratorTraining:
    """Size of the crops and weights of the losses; the adversary joins at a share of the budget (1: never)."""

    size: int = 128
    flow: float = 0.06
    gradient: float = 1.0
    moved: float = 0.5  # on the moved photo alone, so that the flow does not leave its work to the colour
    painted: float = 0.3  # on the colour alone, so that it is ready wherever the mask wants it
    opaque: float = 0.02  # against a mask that gives up the photo's own pixels
    adversarial: float = 0.02
    adversary_from: float = 1.0
    skip: dict[str, range] = field(default_factory=dict)  # frame numbers of a clip that are not used
    network: GeneratorSettings = field(default_factory=GeneratorSettings)


def border_window(size: int, width: float = 20 / CROP_SIZE) -> Tensor:
    """1 inside the crop, falling smoothly to 0 at its border: the compositor's window, (size, size)."""
    distance = (torch.arange(size) + 0.5) / size
    ramp = torch.clamp(torch.minimum(distance, 1 - distance) / width, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return torch.minimum(ramp[:, None], ramp[None, :])


class GeneratorTask:
    """Random pairs; evaluation rebuilds every frame of held-out clips from the clip's first frame."""

    ema = ("encoder", "generator")

    def __init__(self, pictures: Pictures, settings: GeneratorTraining, learning_rate: float) -> None:
        self.pictures, self.settings = pictures, settings
        self.pairs = Pairs(pictures, settings.size, skip=settings.skip)
        self.modules: dict[str, nn.Module] = {
            "encoder": TargetEncoder(settings.network),
            "generator": Generator(settings.network),
            "discriminator": PatchDiscriminator(),
        }
        for module in self.modules.values():
            module.to(memory_format=torch.channels_last)
        painter = [*self.modules["encoder"].parameters(), *self.modules["generator"].parameters()]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "generator": torch.optim.AdamW(painter, learning_rate, (0.9, 0.99), weight_decay=1e-4),
            "discriminator": torch.optim.Adam(self.modules["discriminator"].parameters(), 2e-4, (0.5, 0.99)),
        }
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]
        self.window = border_window(settings.size)
        held_out = Pairs(pictures, settings.size, validation=True)
        self._clips = [[(int(c[0]), int(i)) for i in c[6::12]] for c in held_out.clips]
        self._held_out = held_out

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self.pairs.draw(rng)

    def _inputs(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        size, device = batch["photo"].shape[-1], batch["photo"].device
        read = conditions(batch["driving"].cpu().numpy(), batch["target"].cpu().numpy(), size)
        inputs = {name: torch.from_numpy(value).to(device) for name, value in read.items()}
        inputs["photo"] = (batch["photo"].float() / 255).contiguous(memory_format=torch.channels_last)
        return inputs

    def forward(self, modules: dict[str, nn.Module], inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        features = modules["encoder"](inputs["photo"], inputs["heatmaps"])
        flow, mask, colour = modules["generator"](inputs["driving"], inputs["prior"], *features)
        return flow.float(), mask.float(), colour.float()

    def step(self, batch: dict[str, Tensor], progress: float, fabric: Fabric) -> dict[str, float]:
        s = self.settings
        self.modules["encoder"].train()
        self.modules["generator"].train()
        inputs = self._inputs(batch)
        truth, photo = batch["truth"].float() / 255, inputs["photo"]
        window = self.window.to(photo.device)
        with fabric.autocast():
            flow, mask, colour = self.forward(self.modules, inputs)
        whole = torch.ones_like(mask)
        moved = compose(photo, flow, whole, colour, window)
        share = (1 - mask) * window
        result = moved + share * (colour - moved)
        weight = landmark_weight(inputs["driving"], truth.shape[-1])
        losses = {
            "picture": pyramid_l1(result, truth, weight),
            "gradient": s.gradient * gradient_difference(result, truth, weight),
            "moved": s.moved * pyramid_l1(moved, truth, weight),
            "painted": s.painted * pyramid_l1(colour, truth, weight, 1),
            "flow": s.flow * flow_error(flow, batch["flow"], batch["weight"]),
            "opaque": s.opaque * (1 - mask).mean(),
        }
        if progress >= s.adversary_from:
            channel = landmark_channel(inputs["driving"], truth.shape[-1])
            self._train_discriminator(torch.cat([result.detach(), channel], 1), torch.cat([truth, channel], 1), fabric)
            score = self.modules["discriminator"](torch.cat([result, channel], 1))
            losses["adversarial"] = s.adversarial * lsgan(score, real=True)
        optimizer = self.optimizers["generator"]
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(torch.stack(list(losses.values())).sum())
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
        optimizer.step()
        return {name: value.item() for name, value in losses.items()}

    def _train_discriminator(self, made: Tensor, real: Tensor, fabric: Fabric) -> None:
        discriminator, optimizer = self.modules["discriminator"], self.optimizers["discriminator"]
        with fabric.autocast():
            loss = lsgan(discriminator(real), real=True) + lsgan(discriminator(made), real=False)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimizer.step()

    @torch.no_grad()
    def evaluate(self, modules: dict[str, nn.Module]) -> tuple[dict[str, float], np.ndarray]:
        for module in modules.values():
            module.eval()
        rng = _Still()
        rows, errors, copies = [], [], []
        for clip in self._clips:
            shown = []
            for photo, truth in clip:
                pair = self._held_out.two(photo, truth, rng)
                result, batch = self._rebuild(modules, pair)
                errors.append(np.square(result - batch[1]).mean())
                copies.append(np.square(batch[0] - batch[1]).mean())
                shown.append(np.vstack([*batch, result]))
            rows.append(np.hstack(shown[:6]))
        for start in (0, 6):
            shown = []
            for index in range(start, start + 6):
                draw = np.random.default_rng(index)
                pair = self._held_out.reanimated(int(self._held_out.stills[index * 7]), draw)
                result, batch = self._rebuild(modules, pair)
                shown.append(np.vstack([*batch, result]))
            rows.append(np.hstack(shown))
        width = min(r.shape[1] for r in rows)
        picture = (np.vstack([r[:, :width] for r in rows]) * 255).clip(0, 255).astype(np.uint8)
        psnr = -10 * np.log10(np.array(errors))
        return {"psnr": float(psnr.mean()), "copy_psnr": float((-10 * np.log10(np.array(copies))).mean())}, picture

    def _rebuild(self, modules: dict[str, nn.Module], pair: dict[str, Any]) -> tuple[np.ndarray, list[np.ndarray]]:
        """The result and [photo, truth], each (S, S, 3) in [0, 1]."""
        device = next(modules["generator"].parameters()).device
        batch = {k: torch.from_numpy(pair[k])[None].to(device) for k in ("driving", "target")}
        photo = torch.from_numpy(pair["photo"]).permute(2, 0, 1)[None].to(device)
        inputs = self._inputs(batch | {"photo": photo})
        flow, mask, colour = self.forward(modules, inputs)
        result = compose(inputs["photo"], flow, mask, colour, self.window.to(device))
        picture = result[0].permute(1, 2, 0).cpu().numpy()
        return picture, [pair["photo"] / np.float32(255), pair["truth"] / np.float32(255)]


class _Still(np.random.Generator):
    """A random generator without chance: evaluation crops are not jittered."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        return np.zeros(size) + loc if size is not None else loc


if __name__ == "__main__":
    import sys
    from pathlib import Path

    import cv2

    from trainer.loop import Loop, LoopSettings

    torch.set_num_threads(int(sys.argv[5]) if len(sys.argv) > 5 else 1)
    cv2.setNumThreads(1)
    training = GeneratorTraining(size=int(sys.argv[3]), skip={"pexels_expressions": range(58, 246)})
    loop = LoopSettings(minutes=float(sys.argv[2]), batch=int(sys.argv[4]), learning_rate=1e-3)
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    task = GeneratorTask(Pictures(Path("runs/data.npz")), training, loop.learning_rate)
    print(Loop(task, loop, Path(sys.argv[1]), fabric).run())
