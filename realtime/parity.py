"""How far two sets of models are apart on real faces: engines, precisions, cards."""

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import NamedTuple

import numpy as np

from realtime.annotation import find_face
from realtime.errors import InputError
from realtime.faces import FaceFinder
from realtime.head import Head, HeadFinder
from realtime.landmarks import Array, heatmap_points, render_heatmaps
from realtime.photo import load_photo, portrait_names
from realtime.prior import driving_prior
from realtime.puppet import Image, Models
from realtime.retarget import Retargeter
from realtime.sources import MotionSource

POSES = 3  # of each face, spread over a recorded motion
GREY = 255  # levels of a colour


class Face(NamedTuple):
    """crop: a photo's face, uint8 (256, 256, 3); head: what is seen of it; driving: where its points shall go, (56, 2)
    each."""

    crop: Image
    head: Head
    driving: list[Array]


def portrait_faces(models: Models, poses: int = POSES) -> Iterator[Face]:
    """The embedded portraits, each driven to some poses of a recorded motion."""
    with closing(FaceFinder()) as finder, closing(HeadFinder()) as head_finder:
        for name in portrait_names():
            face = find_face(load_photo(name), models.detect, finder)
            if face is None:
                raise InputError(f"the models find no face in the portrait {name}: they cannot be compared on it")
            points = heatmap_points(models.detect(face.crop))[0]
            retargeter = Retargeter(points)
            moved = [
                retargeter.drive(frame.points, float(frame.pts * frame.time_base))
                for frame in MotionSource("talking")
                if frame.points is not None
            ]
            head = head_finder.find(face.crop, points)
            yield Face(face.crop, head, list(islice(moved, len(moved) // poses - 1, None, len(moved) // poses)))


def difference(models: Models, reference: Models, faces: list[Face]) -> dict[str, float]:
    """The largest differences: landmarks and flow in crop pixels, mask in shares, colour in grey levels of 255.

    Both get the same inputs; each has its own features of a photo.
    """
    worst = dict.fromkeys(("landmarks", "flow", "mask", "colour"), 0.0)

    def note(name: str, ours: Array, theirs: Array, scale: float = 1) -> None:
        worst[name] = max(worst[name], scale * float(np.abs(ours - theirs).max()))

    for crop, head, poses in faces:
        theirs = reference.detect(crop).copy()
        note("landmarks", heatmap_points(models.detect(crop).copy())[0], heatmap_points(theirs)[0])
        features = [one.encode_target(crop, theirs) for one in (models, reference)]
        for pose in poses:
            inputs = render_heatmaps(pose), driving_prior(pose, head)
            made = [array.copy() for array in models.generate(*inputs, features[0])]
            right = reference.generate(*inputs, features[1])
            for name, ours, true, scale in zip(("flow", "mask", "colour"), made, right, (1, 1, GREY), strict=True):
                note(name, ours, true, scale)
    return {name: round(value, 4) for name, value in worst.items()}


def sentence(worst: dict[str, float]) -> str:
    """What `difference` found, for a person."""
    return (
        f"at most {worst['landmarks']:.3f} px at the landmarks, {worst['flow']:.3f} px of flow, "
        f"{worst['mask']:.4f} of the mask, {worst['colour']:.2f} grey levels of colour"
    )
