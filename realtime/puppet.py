"""The puppet: one photo, and the way of a frame from the source's face to the photo's."""

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from realtime.alignment import cut, inverse, transform
from realtime.compositor import Compositor
from realtime.errors import InputError
from realtime.faces import FaceFinder, FaceState, FaceTracker, acquire, align, is_facelike
from realtime.head import MARGIN, HeadFinder
from realtime.landmarks import CROP_SIZE, MIRROR, Array, heatmap_points, pupil_distance, render_heatmaps
from realtime.photo import Notify
from realtime.prior import CROP_CELLS, flow_prior, uncovered
from realtime.retarget import Retargeter, RetargetSettings
from realtime.sources import Frame

Image = NDArray[np.uint8]

STAGES = ("find", "detect", "retarget", "generate", "composite", "total")
SMALLEST = 16.0  # pixels between a photo's eyes: a quarter of what the crop shows
# Turns (radians) and sizes of the crops whose points are averaged over for the photo: its errors are in every frame.
JITTER = ((0.0, 1.0), (0.07, 1.05), (-0.07, 0.95))

_log = logging.getLogger(__name__)


class Models(Protocol):
    """The three networks as callables on numpy arrays; engines satisfy it by shape.

    The features are the engine's own affair. Arrays that a method returns may be overwritten by its next call.
    `detect` may be called by one thread while another one is in `generate` or `encode_target`.
    """

    engine: str
    precision: str
    device: str

    def detect(self, crop: Image) -> Array:
        """Crop uint8 (256, 256, 3) -> heatmaps float32 (56, 64, 64) in [0, 1]."""

    def encode_target(self, crop: Image, heatmaps: Array) -> Any:
        """The photo's crop and its heatmaps -> features, once per photo."""

    def generate(self, driving: Array, prior: Array, features: Any) -> tuple[Array, Array, Array]:
        """Heatmaps (56, 64, 64) and prior (3, 128, 128) -> flow (2, 128, 128) in crop pixels, mask (256, 256), colour
        (256, 256, 3) in [0, 1]; all float32."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Sight:
    """A frame, and what was seen in it: state is what is known of the face, points and crop are Result's; stages_ms has
    the milliseconds of find and detect."""

    frame: Frame
    state: FaceState
    points: Array | None
    crop: Image | None
    stages_ms: dict[str, float]


@dataclass(frozen=True)
class Result:
    """What came of a frame.

    image: the photo, moved, RGB uint8; face: what was known of the source's face; stages_ms: milliseconds by STAGES;
    points: (56, 2) float32, where the source's face was seen, in pixels of its frame, None without one;
    crop: uint8 (256, 256, 3), the source's face as it was measured, None without one or for a motion track.
    """

    image: Image
    face: FaceState
    stages_ms: dict[str, float]
    points: Array | None
    crop: Image | None


class _Stopwatch:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self._lap = time.perf_counter()

    def lap(self) -> float:
        before, self._lap = self._lap, time.perf_counter()
        return (self._lap - before) * 1000


class Puppet:
    """A photo that is driven frame by frame. One thread owns it, and `models` with it; `close` leaves those open.
    Another thread may `see` the next frame while the owner shows the last one.

    `retargeter` is there to calibrate and to set. `notify` takes sentences for the user. Raises InputError for a photo
    without a usable face.
    """

    def __init__(
        self,
        models: Models,
        photo: Image,
        settings: RetargetSettings | None = None,
        notify: Notify = _log.warning,
    ) -> None:
        self._models, self._notify = models, notify
        self._detect_ms = 0.0
        self._looking = threading.Lock()  # of the finder, the detector and the tracker
        self._finder, self._head_finder = FaceFinder(), HeadFinder()
        self._tracker = FaceTracker(self._detect, self._finder)
        try:
            self.retargeter = Retargeter(self._take(photo), settings)
        except BaseException:
            self.close()
            raise

    def set_photo(self, photo: Image) -> None:
        """Take another photo, RGB uint8 (H, W, 3); the source's neutral stays.

        Raises InputError, and keeps the old photo, if the new one has no usable face.
        """
        self.retargeter.set_photo(self._take(photo))

    def _take(self, photo: Image) -> Array:
        """Have the models and the compositor ready for a photo: its points (56, 2) in its crop."""
        with self._looking:
            measured = self._photo_points(photo, self._frame_face(photo))
        matrix = align(measured)
        points = transform(measured, matrix)
        wide = np.column_stack([matrix[:, :2], matrix[:, 2] + MARGIN])
        head = self._head_finder.find(cut(photo, wide, CROP_SIZE + 2 * MARGIN), points)
        compositor = Compositor(photo, matrix)
        self._features = self._models.encode_target(cut(photo, matrix), render_heatmaps(points))
        self._head, self._compositor = head, compositor
        if not head.apart.any():
            self._notify("no background can be told from the photo's person: what is beside the head moves with it")
        return points

    def animate(self, frame: Frame) -> Result:
        """The photo with the expression of the source's frame."""
        return self.show(self.see(frame))

    def see(self, frame: Frame) -> Sight:
        """The source's face in its next frame. One thread at a time sees, in the frames' order."""
        if frame.image is None:
            return Sight(frame, FaceState.TRACKED, frame.points, None, {})
        with self._looking:
            watch, self._detect_ms = _Stopwatch(), 0.0
            face = self._tracker.track(frame.image)
            stages = {"find": watch.lap() - self._detect_ms, "detect": self._detect_ms}
            points, crop = (face.points, face.crop) if face else (None, None)
            return Sight(frame, self._tracker.state, points, crop, stages)

    def show(self, sight: Sight) -> Result:
        """The photo with the expression that was seen."""
        watch, stages = _Stopwatch(), dict.fromkeys(STAGES, 0.0) | sight.stages_ms
        frame = sight.frame
        driving, wide, hidden = self._drive(sight.points, float(frame.pts * frame.time_base))
        prior = np.concatenate([wide[CROP_CELLS], hidden[None]])
        stages["retarget"] = watch.lap()
        wide[CROP_CELLS], mask, colour = self._models.generate(driving, prior, self._features)
        stages["generate"] = watch.lap()
        image = self._compositor.compose(wide, mask, colour)
        stages["composite"] = watch.lap()
        stages["total"] = sum(stages.values())
        return Result(image, sight.state, stages, sight.points, sight.crop)

    def close(self) -> None:
        self._finder.close()
        self._head_finder.close()

    def _drive(self, points: Array | None, timestamp: float) -> tuple[Array, Array, Array]:
        """Driving heatmaps, wide flow prior and what is uncovered, for the source's points or for their absence."""
        retargeter, head = self.retargeter, self._head
        driving = retargeter.lost(timestamp) if points is None else retargeter.drive(points, timestamp)
        return render_heatmaps(driving), flow_prior(driving, head, margin=MARGIN), uncovered(driving, head.points)

    def _detect(self, crop: Image) -> Array:
        watch = _Stopwatch()
        heatmaps = self._models.detect(crop)
        self._detect_ms += watch.lap()
        return heatmaps

    def _frame_face(self, photo: Image) -> Array:
        """The matrix that takes the photo's largest face to the crop."""
        faces = self._finder.find(photo)
        if not faces:
            raise InputError("the photo shows no face: one that looks towards the camera is needed")
        if len(faces) > 1:
            self._notify(f"the photo shows {len(faces)} faces: the largest is taken")
        face = acquire(photo, faces[0], self._detect)
        if not is_facelike(face):
            raise InputError("the photo's face cannot be made out: one that looks towards the camera is needed")
        apart = float(pupil_distance(face.points))
        if apart < SMALLEST:
            raise InputError(
                f"the photo's face is too small: its eyes are {apart:.0f} px apart, and {SMALLEST:.0f} px are needed"
            )
        return align(face.points)

    def _photo_points(self, photo: Image, matrix: Array) -> Array:
        """The photo's landmarks, (56, 2) in its pixels: the mean over crops turned, scaled and flipped."""
        measured = []
        centre = np.full(2, (CROP_SIZE - 1) / 2, np.float32)
        for turn, size in JITTER:
            cosine, sine = size * np.cos(turn), size * np.sin(turn)
            linear = np.array([[cosine, -sine], [sine, cosine]], np.float32)
            shift = linear @ (matrix[:, 2] - centre) + centre
            jittered = np.column_stack([linear @ matrix[:, :2], shift]).astype(np.float32)
            crop, back = cut(photo, jittered), inverse(jittered)
            measured.append(transform(heatmap_points(self._detect(crop))[0], back))
            flipped = heatmap_points(self._detect(np.ascontiguousarray(crop[:, ::-1])))[0][MIRROR]
            flipped[:, 0] = CROP_SIZE - 1 - flipped[:, 0]
            measured.append(transform(flipped, back))
        mean: Array = np.mean(measured, axis=0, dtype=np.float32)
        return mean
