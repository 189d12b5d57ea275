"""Training the generator that ships: first the flow at 128 pixels, then 256, the adversary last."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from realtime.compositor import border_window
from realtime.head import Head
from realtime.landmarks import CROP_SIZE, LIPS
from realtime.prior import driving_prior
from trainer.data import Pictures
from trainer.detector import Detector
from trainer.generator import FLOW_STRIDE, Generator, GeneratorSettings, TargetEncoder, compose, up
from trainer.loop import cosine, optimize
from trainer.losses import (
    PatchDiscriminator,
    feature_matching,
    flow_error,
    gradient_difference,
    landmark_channel,
    landmark_weight,
    lsgan,
    mask_entropy,
    masked_l1,
    pyramid_l1,
    sharp_parts,
)
from trainer.pairs import Pairs
from trainer.sheet import sheet, wrapped
from trainer.thesis import freeze, full_size, landmark_loss
from trainer.train_detector import drawn_heatmaps, seen_by

JUDGED = 0.04  # weight of the landmark loss with `--judge`: its gradient is then as large as the picture's


@dataclass(frozen=True)
class GeneratorTraining:
    """Size of the crops and weights of the losses; the adversary joins at a share of the budget (1: never)."""

    size: int = 128
    flow: float = 0.06
    gradient: float = 1.0
    moved: float = 0.5  # on the moved photo alone, so that the flow does not leave its work to the colour
    painted: float = 0.3  # on the colour alone, so that it is ready wherever the mask wants it
    parts: float = 0.5  # on the eyes and lips alone, whose few pixels are what people look at
    mouth: float = 0.6  # on the colour between the lips, whose few pixels would not count otherwise
    opaque: float = 0.25  # keeps the photo's own pixels, but where lips open on what they hid
    adversarial: float = 0.35
    matching: float = 0.8  # of the discriminator's features
    adversary_from: float = 1.0
    landmark: float = 0.0  # equation 4.1; more than 0 needs a detector that judges
    mouths: float = 0.0  # share of pairs in which a shut mouth opens
    train_encoder: bool = True
    skip: dict[str, tuple[int, int]] = field(default_factory=dict)  # first and last frame of a clip not to use
    network: GeneratorSettings = field(default_factory=GeneratorSettings)


def mouth_windows(pictures: Tensor, driving: Tensor) -> Tensor:
    """The parts about the lips, (B, C, 5S/16, S/2), of crops (B, C, S, S) with driving points (B, 56, 2).

    The adversary looks at them: teeth differ most from any mean, which is what other losses ask for. It is kept off
    the eyes, where it likes a glint better than a lid that is shut.
    """
    size = pictures.shape[-1]
    height, width = size * 5 // 16, size // 2
    middle = driving[:, LIPS].mean(1)
    corners = (middle * (size / CROP_SIZE)).int() - torch.tensor([width // 2, height // 2], device=middle.device)
    places = [(min(max(x, 0), size - width), min(max(y, 0), size - height)) for x, y in corners.tolist()]
    return torch.stack([p[:, y : y + height, x : x + width] for p, (x, y) in zip(pictures, places, strict=True)])


class GeneratorTask:
    """Random pairs; evaluation rebuilds every frame of held-out clips from the clip's first frame."""

    ema: tuple[str, ...] = ("encoder", "generator")

    def __init__(
        self,
        pictures: Pictures,
        settings: GeneratorTraining,
        learning_rate: float,
        judge: Detector | None = None,
    ) -> None:
        """`judge`: a detector whose heatmaps of the results are to be those of the truths; the points that drive are
        then its own, too, as they will be live, with what it makes of lids that shut and mouths that open."""
        if (judge is None) != (settings.landmark == 0):
            raise ValueError("a judge and a weight of the landmark loss go together")
        self.judge = None if judge is None else freeze(judge)
        self.pictures = pictures = pictures if self.judge is None else seen_by(self.judge, pictures)
        self.settings = settings
        skip = {clip: range(first, last + 1) for clip, (first, last) in settings.skip.items()}
        self.pairs = Pairs(pictures, settings.size, skip=skip, mouths=settings.mouths)
        self.modules: dict[str, nn.Module] = {
            "encoder": TargetEncoder(settings.network),
            "generator": Generator(settings.network),
            "discriminator": PatchDiscriminator(),
        }
        for module in self.modules.values():
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        painter = [*self.modules["encoder"].parameters(), *self.modules["generator"].parameters()]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "generator": torch.optim.AdamW(painter, learning_rate, (0.9, 0.99), weight_decay=1e-4),
            "discriminator": torch.optim.Adam(self.modules["discriminator"].parameters(), learning_rate, (0.5, 0.99)),
        }
        self.window = torch.from_numpy(border_window(settings.size))
        held_out = Pairs(pictures, settings.size, validation=True)
        self._clips = [[(int(c[0]), int(i)) for i in c[6::12]] for c in held_out.clips]
        self._held_out = held_out

    def schedule(self, progress: float) -> float:
        return cosine(progress)

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A pair (trainer.pairs.Pairs.draw), and what its landmarks alone say of it, `prior` (3, S/2, S/2)."""
        return self._told(self.pairs.draw(rng))

    def _told(self, pair: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        head = Head(*(pair[name].astype(np.float32) for name in ("target", "own", "apart")))
        return pair | {"prior": driving_prior(pair["driving"], head, self.settings.size // FLOW_STRIDE)}

    def _inputs(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the networks read: the photo in [0, 1], heatmaps, drawn where the networks are, and the prior."""
        size = batch["photo"].shape[-1]
        return {
            "photo": (batch["photo"].float() / 255).contiguous(memory_format=torch.channels_last),
            "driving": drawn_heatmaps(batch["driving"], size),
            "heatmaps": drawn_heatmaps(batch["target"], size),
            "prior": batch["prior"],
        }

    def forward(self, modules: dict[str, nn.Module], inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        features = modules["encoder"](inputs["photo"], inputs["heatmaps"])
        flow, mask, colour = modules["generator"](inputs["driving"], inputs["prior"], *features)
        return flow.float(), mask.float(), colour.float()

    def step(self, batch: dict[str, Tensor], progress: float, fabric: Fabric) -> dict[str, float]:
        s = self.settings
        self.modules["encoder"].train(s.train_encoder).requires_grad_(s.train_encoder)
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
        mouth = F.max_pool2d(batch["mouth"][:, None], 3, 1, 1)
        weight = torch.maximum(landmark_weight(inputs["driving"], truth.shape[-1]), 6 * mouth)
        hidden = up(inputs["prior"][:, 2:])
        losses = {
            "picture": pyramid_l1(result, truth, weight),
            "gradient": s.gradient * gradient_difference(result, truth, weight),
            "moved": s.moved * pyramid_l1(moved, truth, weight),
            "painted": s.painted * pyramid_l1(colour, truth, 0.2 + 0.1 * weight, 2),
            "parts": s.parts * masked_l1(result, truth, sharp_parts(inputs["driving"], truth.shape[-1])),
            "mouth": s.mouth * masked_l1(colour, truth, mouth),
            "flow": s.flow * flow_error(flow, batch["flow"], batch["weight"] * F.avg_pool2d(weight, FLOW_STRIDE)[:, 0]),
            "opaque": s.opaque * mask_entropy(mask, hidden),
        }
        if self.judge is not None:
            losses["landmark"] = s.landmark * self._landmark_loss(result, truth, fabric)
        if progress >= s.adversary_from:
            channel = landmark_channel(inputs["driving"], truth.shape[-1])
            # Between the lips alone: what it likes better of the skin around them are marks.
            judged = result.detach() + mouth * (result - result.detach())
            made, real = (
                mouth_windows(torch.cat([picture, channel], 1), batch["driving"]) for picture in (judged, truth)
            )
            self._train_discriminator(made.detach(), real, fabric)
            discriminator: Any = self.modules["discriminator"]
            with fabric.autocast():
                *of_made, score = discriminator.features(made)
                with torch.no_grad():
                    *of_real, _ = discriminator.features(real)
            losses["adversarial"] = s.adversarial * lsgan(score.float(), real=True)
            losses["matching"] = s.matching * feature_matching(of_made, of_real)
        optimize(fabric, self.optimizers["generator"], torch.stack(list(losses.values())).sum())
        return dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))

    def _landmark_loss(self, result: Tensor, truth: Tensor, fabric: Fabric) -> Tensor:
        judge: Any = self.judge.to(result.device)  # type: ignore[union-attr]
        with fabric.autocast():
            with torch.no_grad():
                asked = judge(full_size(truth))
            shown = judge(full_size(result))
        return landmark_loss(shown.float(), asked.float())

    def _train_discriminator(self, made: Tensor, real: Tensor, fabric: Fabric) -> None:
        discriminator = self.modules["discriminator"]
        with fabric.autocast():
            loss = lsgan(discriminator(real), real=True) + lsgan(discriminator(made), real=False)
        optimize(fabric, self.optimizers["discriminator"], loss, clip=None)

    @torch.no_grad()
    def evaluate(self, modules: dict[str, nn.Module]) -> tuple[dict[str, float], np.ndarray]:
        """PSNR on held-out clips, and that of copying the photo; columns of photo, truth and result of clips and of
        re-animated stills."""
        for module in modules.values():
            module.eval()
        rows: list[Sequence[np.ndarray]] = []
        errors, copies = [], []
        for clip in self._clips:
            shown = []
            for photo, truth in clip:
                pair = self._held_out.two(photo, truth, None)
                result = self._rebuilt(modules, pair)
                errors.append(_square_error(result, pair["truth"]))
                copies.append(_square_error(pair["photo"], pair["truth"]))
                shown.append(np.vstack([pair["photo"], pair["truth"], result]))
            rows.append(shown[:6])
        stills = [int(i) for i in self._held_out.stills[: 12 * 7 : 7]]
        pairs = [self._held_out.reanimated(still, np.random.default_rng(i)) for i, still in enumerate(stills)]
        shown = [np.vstack([p["photo"], p["truth"], self._rebuilt(modules, p)]) for p in pairs]
        rows += wrapped(shown, 6)
        metrics = {}
        if errors:
            metrics = {"psnr": _mean_psnr(errors), "copy_psnr": _mean_psnr(copies)}
        return metrics, sheet(rows)

    def _rebuilt(self, modules: dict[str, nn.Module], pair: dict[str, Any]) -> np.ndarray:
        """The result for one pair that is not augmented, RGB uint8 (S, S, 3)."""
        device = next(modules["generator"].parameters()).device
        told = self._told(pair)
        batch = {k: torch.from_numpy(told[k])[None].to(device) for k in ("driving", "target", "prior")}
        photo = torch.from_numpy(pair["photo"]).permute(2, 0, 1)[None].to(device)
        inputs = self._inputs(batch | {"photo": photo})
        flow, mask, colour = self.forward(modules, inputs)
        result = compose(inputs["photo"], flow, mask, colour, self.window.to(device))
        return (result[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy()


def _square_error(a: np.ndarray, b: np.ndarray) -> float:
    """Mean square difference of two uint8 pictures on a scale of 0 to 1, at least that of rounding."""
    return max(float(np.square((a.astype(np.float32) - b) / 255).mean()), 1e-6)


def _mean_psnr(errors: list[float]) -> float:
    return float(np.mean([-10 * np.log10(error) for error in errors]))
