"""Training the thesis's generator (4.6): random pairs of people, its objective (4.7), a frozen landmark detector."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from realtime.alignment import cut, similarity, transform
from realtime.compositor import border_window
from realtime.errors import InputError
from realtime.landmarks import CROP_SIZE, STRIDE, five_points, render_heatmaps
from trainer.augment import colour
from trainer.baselines import dlib_model
from trainer.data import Pictures
from trainer.detector import Detector
from trainer.fpn import FpnGenerator, FpnSettings, FpnTargetEncoder, Pyramid
from trainer.loop import optimize
from trainer.losses import PatchDiscriminator, landmark_channel
from trainer.metrics import psnr
from trainer.pairs import Pairs, jittered
from trainer.sheet import sheet, wrapped
from trainer.thesis import (
    ADVERSARIAL,
    WITH_DISCRIMINATOR,
    Coefficients,
    content_loss,
    freeze,
    full_size,
    gradient_penalty,
    identity_loss,
    landmark_loss,
    objective,
)
from trainer.train_detector import drawn_heatmaps

LANDMARKS = ("unet", "dlib")
ENCODER = "the landmark detector's encoder"
DLIB_PARTS = np.r_[17:27, 36:68]  # brows, eyes and lips of dlib's 68 points

Features = Callable[[Tensor], Tensor]  # pictures (B, 3, S, S) in [0, 1] -> features


@dataclass(frozen=True)
class FpnTraining:
    """Size of the crops, the choices of section 5.5, the scales of the objective, whose features its content and
    identity losses compare, and where the backbones' weights are from."""

    generator: str = "fpn"
    size: int = 256
    adversary: str = "ralsgan"
    landmarks: str = "unet"  # the detector whose landmarks the discriminator is shown
    scales: Coefficients = WITH_DISCRIMINATOR
    content: str = ""
    identity: str = ""
    backbone: str = "none"
    discriminator: int = 64  # channels of its first layer
    skip: dict[str, tuple[int, int]] = field(default_factory=dict)
    network: FpnSettings = field(default_factory=FpnSettings)


def dlib_landmarks() -> Callable[[np.ndarray], np.ndarray]:
    """dlib's 68-point predictor on an aligned crop, RGB uint8 (256, 256, 3) -> brows, eyes and lips (42, 2).

    Raises InputError if dlib is not installed.
    """
    path = dlib_model("shape_predictor_68_face_landmarks.dat")
    if path is None:
        raise InputError("dlib's landmarks need the eval extra: pip install 'puppetcam[eval]'")
    import dlib

    predictor, face = dlib.shape_predictor(str(path)), dlib.rectangle(60, 70, 196, 206)  # where alignment puts it

    def find(crop: np.ndarray) -> np.ndarray:
        shape = predictor(crop, face)
        return np.array([(shape.part(int(i)).x, shape.part(int(i)).y) for i in DLIB_PARTS], np.float32)

    return find


@dataclass(frozen=True)
class Judges:
    """The frozen networks behind the losses: the landmark detector, and VGG19 and ArcFace by their names where the
    user has their weights; and the file of the backbones' first weights."""

    detector: Detector
    content: tuple[str, Features] | None = None
    identity: tuple[str, Features] | None = None
    backbone: Path | None = None

    @property
    def content_name(self) -> str:
        return self.content[0] if self.content else f"{ENCODER}, in place of VGG19"

    @property
    def identity_name(self) -> str:
        return self.identity[0] if self.identity else f"{ENCODER}, in place of ArcFace"


class FpnTask:
    """Photo and source are random pictures, mostly of two people: what is real is the source with its landmarks.

    The discriminator is shown the landmarks, unless the landmark loss (4.1) judges expressions in its place. Without
    VGG19 (4.5) and ArcFace (4.3) the frozen detector's encoder stands in for them.
    """

    ema: tuple[str, ...] = ("encoder", "generator")

    def __init__(self, pictures: Pictures, settings: FpnTraining, learning_rate: float, judges: Judges) -> None:
        if settings.scales.landmark and settings.landmarks == "dlib":
            raise InputError("the landmark loss needs gradients, which dlib's detector does not have: choose unet")
        settings = replace(settings, content=judges.content_name, identity=judges.identity_name)
        if judges.backbone is not None:
            network = replace(settings.network, normalization="batch")
            settings = replace(settings, network=network, backbone=judges.backbone.name)
        self.pictures, self.settings = pictures, settings
        self.modules: dict[str, nn.Module] = {
            "encoder": FpnTargetEncoder(settings.network),
            "generator": FpnGenerator(settings.network),
            "discriminator": PatchDiscriminator(settings.discriminator),
        }
        for module in self.modules.values():
            module.apply(_xavier)
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if judges.backbone is not None:
            for pyramid in (self.modules["encoder"].pyramid, self.modules["generator"].source):
                assert isinstance(pyramid, Pyramid)
                pyramid.load_backbone(judges.backbone)
        painter = [*self.modules["encoder"].parameters(), *self.modules["generator"].parameters()]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "generator": torch.optim.Adam(painter, learning_rate),
            "discriminator": torch.optim.Adam(self.modules["discriminator"].parameters(), learning_rate),
        }
        self.judge = freeze(judges.detector)
        self.content = judges.content[1] if judges.content else None
        self.identity = judges.identity[1] if judges.identity else None
        self._dlib = dlib_landmarks() if settings.landmarks == "dlib" else None
        self.window = torch.from_numpy(border_window(settings.size))
        skip = {clip: range(first, last + 1) for clip, (first, last) in settings.skip.items()}
        pairs = Pairs(pictures, settings.size, skip=skip)
        self._trained = np.concatenate([pairs.stills, *pairs.clips])
        held_out = Pairs(pictures, settings.size, validation=True)
        self._clips = [(int(c[0]), int(i)) for c in held_out.clips for i in c[6::12]][:24]
        self._stills = [(int(a), int(b)) for a, b in zip(held_out.stills[:12], held_out.stills[::-1], strict=False)]

    def schedule(self, progress: float) -> float:
        """Constant for 40 of 250 epochs, then linearly down to a thousandth (5.3.1)."""
        return 1 - 0.999 * max(0.0, progress - 0.16) / 0.84

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Photo and source (3, S, S) uint8, the source's landmarks (56, 2) in crop pixels and, of dlib's, the merged
        heatmap (1, S/4, S/4)."""
        photo, source = rng.choice(self._trained, 2)
        (target, _), (crop, points) = self._crop(photo, None, rng), self._crop(source, None, rng)
        drawn = {"photo": self._shrunk(target), "source": self._shrunk(crop), "driving": points}
        if self._dlib:
            heatmaps = render_heatmaps(self._dlib(crop), self.settings.size // STRIDE)
            drawn["shown"] = heatmaps.sum(0, keepdims=True).clip(0, 1)
        return drawn

    def _crop(
        self, index: int, aligned_on: int | None, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """A picture's crop, RGB uint8 (256, 256, 3), and its points, aligned on itself or on another picture."""
        points = self.pictures.points
        matrix = similarity(five_points(points[index if aligned_on is None else aligned_on]))
        if rng is None:
            return cut(self.pictures.image(index), matrix), transform(points[index], matrix)
        matrix = jittered(matrix, rng)
        return colour(cut(self.pictures.image(index), matrix), rng, 0.4), transform(points[index], matrix)

    def _shrunk(self, crop: np.ndarray) -> np.ndarray:
        size = self.settings.size
        smaller = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA) if size < CROP_SIZE else crop
        return np.ascontiguousarray(smaller.transpose(2, 0, 1))

    def forward(self, modules: dict[str, nn.Module], photo: Tensor, source: Tensor, driving: Tensor) -> Tensor:
        """Crops (B, 3, S, S) in [0, 1] and the source's points (B, 56, 2) -> the result (B, 3, S, S)."""
        if self.settings.network.source == "heatmaps":
            source = drawn_heatmaps(driving.to(photo.device), photo.shape[-1])
        nothing = photo.new_zeros(len(photo), 2, photo.shape[-1] // STRIDE, photo.shape[-1] // STRIDE)
        features = modules["encoder"](photo, nothing)
        made = modules["generator"](source, nothing, *features)[2].float()
        return photo + self.window.to(photo.device) * (made - photo)  # its border is the photo's, as in the program

    def _seen(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """What content and identity losses compare: a feature map and an embedding (B, N)."""
        if self.content and self.identity:
            return self.content(picture), self.identity(picture)
        levels = self.judge.features(full_size(picture))  # type: ignore[operator]
        content = self.content(picture) if self.content else levels[2]
        identity = self.identity(picture) if self.identity else F.normalize(levels[-1].mean((2, 3)))
        return content.float(), identity.float()

    def step(self, batch: dict[str, Tensor], progress: float, fabric: Fabric) -> dict[str, float]:  # noqa: ARG002
        self.judge.to(fabric.device)
        for module in (part for network in self.modules.values() for part in network.modules()):
            module.training = not isinstance(module, nn.BatchNorm2d)  # statistics come with public weights, and stay
        scales = self.settings.scales
        photo, source = (
            (batch[name].float() / 255).contiguous(memory_format=torch.channels_last) for name in ("photo", "source")
        )
        with fabric.autocast():
            result = self.forward(self.modules, photo, source, batch["driving"])
        with torch.no_grad(), fabric.autocast():
            asked = self.judge(full_size(source)).float() if "shown" not in batch else batch["shown"]
            of_photo = self._seen(photo)
        with fabric.autocast():
            of_result = self._seen(result)
            losses = {
                "content": content_loss(result, photo, of_result[0], of_photo[0]),
                "adversarial": torch.zeros((), device=photo.device),
                "identity": identity_loss(of_result[1], of_photo[1]),
            }
            if scales.landmark:
                losses["landmark"] = landmark_loss(self.judge(full_size(result)).float(), asked)
        if scales.adversarial:
            channel = landmark_channel(asked, source.shape[-1])
            if scales.landmark:  # the loss judges expressions: the discriminator does not see them
                channel = torch.zeros_like(channel)
            real, made = torch.cat([source, channel], 1), torch.cat([result, channel], 1)
            losses["adversarial"] = self._against(real, made, fabric)
        optimize(fabric, self.optimizers["generator"], objective(scales, **losses), clip=None)
        return {name: value.item() for name, value in losses.items()}

    def _against(self, real: Tensor, made: Tensor, fabric: Fabric) -> Tensor:
        """One step of the discriminator on pictures with their landmark channel (B, 4, S, S); the generator's loss."""
        score = self.modules["discriminator"]
        of_discriminator, of_generator = ADVERSARIAL[self.settings.adversary]
        with fabric.autocast():
            loss = of_discriminator(score(real).float(), score(made.detach()).float())
        if self.settings.adversary == "wgan":
            share = torch.rand(len(real), 1, 1, 1, device=real.device)
            loss = loss + gradient_penalty(score, real, made, share)
        optimize(fabric, self.optimizers["discriminator"], loss, clip=None)
        with fabric.autocast():
            with torch.no_grad():
                of_real = score(real).float()
            return of_generator(of_real, score(made).float())

    @torch.no_grad()
    def evaluate(self, modules: dict[str, nn.Module]) -> tuple[dict[str, float], np.ndarray]:
        """PSNR on held-out clips, rebuilt from their first frames, and that of copying the photo; columns of photo,
        source and result of clips and of pairs of people."""
        for module in modules.values():
            module.eval()
        shown: list[np.ndarray] = []
        scores, copies = [], []
        for photo, source in self._clips:
            column = self._rebuilt(modules, photo, source, photo)
            scores.append(psnr(column[2], column[1]))
            copies.append(psnr(column[0], column[1]))
            shown.append(np.vstack(column))
        shown = shown[::4] + [np.vstack(self._rebuilt(modules, photo, source)) for photo, source in self._stills]
        rows: list[Sequence[np.ndarray]] = wrapped(shown, 6)
        metrics = {"psnr": float(np.mean(scores)), "copy_psnr": float(np.mean(copies))} if scores else {}
        return metrics, sheet(rows)

    def _rebuilt(
        self, modules: dict[str, nn.Module], photo: int, source: int, aligned_on: int | None = None
    ) -> list[np.ndarray]:
        """Photo, source and result, RGB uint8 (S, S, 3)."""
        device = next(modules["generator"].parameters()).device
        (target, _), (driving, points) = self._crop(photo, None, None), self._crop(source, aligned_on, None)
        crops = [self._shrunk(target), self._shrunk(driving)]
        tensors = [torch.from_numpy(crop)[None].to(device).float() / 255 for crop in crops]
        result = self.forward(modules, tensors[0], tensors[1], torch.from_numpy(points)[None])
        made = (result[0].clamp(0, 1) * 255).round().byte().cpu().numpy()
        return [picture.transpose(1, 2, 0) for picture in (*crops, made)]


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
