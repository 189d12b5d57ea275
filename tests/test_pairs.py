"""Pairs: the true flow warps the photo into the truth; the mesh's triangles; what is drawn is repeatable."""

import cv2
import numpy as np
import pytest
import torch

from realtime.alignment import similarity, transform
from realtime.compositor import border_window
from realtime.head import CELL, HEAD, OUTLINE_COUNT
from realtime.landmarks import CROP_SIZE
from realtime.pose import MEAN_FACE, YAW, fit_pose, lift
from tests.drawn import write_drawn
from trainer.data import Pictures
from trainer.detector import LIVE
from trainer.generator import compose, conditions
from trainer.mesh import (
    ABOVE_LIDS,
    INSIDE_OVAL,
    IRISES,
    LOWER_LIDS,
    OVAL,
    UPPER_INNER_LIP,
    UPPER_LIDS,
    close_lids,
    rigid_fit,
    turn,
)
from trainer.metrics import eye_opening, mouth_opening
from trainer.pairs import Pairs, augmented, mouth_interior
from trainer.prepare import MARGIN, PICTURE_SIZE
from trainer.train_detector import DetectorTask


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    path = tmp_path_factory.mktemp("drawn") / "data.npz"
    write_drawn(path, stills=4, held_out_stills=2, frames=5, wander=3)
    return Pictures(path)


@pytest.fixture(scope="module")
def pairs(pictures: Pictures) -> Pairs:
    return Pairs(pictures, 256)


def difference(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float32) - b)[where].mean())


def warped(pair: dict[str, np.ndarray]) -> np.ndarray:
    """The pair's photo under its flow, as the generator's output is composed."""
    photo = torch.from_numpy(pair["photo"]).permute(2, 0, 1)[None].float() / 255
    flow = torch.from_numpy(pair["flow"])[None]
    whole, nothing = torch.ones(1, 1, 256, 256), torch.zeros(1, 3, 256, 256)
    moved = compose(photo, flow, whole, nothing, torch.ones(256, 256))
    return (moved[0].permute(1, 2, 0) * 255).numpy()


def on_face(pair: dict[str, np.ndarray]) -> np.ndarray:
    inside = cv2.resize(pair["weight"], (256, 256), interpolation=cv2.INTER_NEAREST) > 0.5
    return cv2.erode(inside.astype(np.uint8), np.ones((9, 9))) > 0


def test_the_flow_of_a_reanimated_still_leads_back_to_it(pairs: Pairs) -> None:
    for seed in range(6):
        pair = pairs.reanimated(int(pairs.stills[0]), np.random.default_rng(seed))
        face = on_face(pair)
        before, after = difference(pair["photo"], pair["truth"], face), difference(warped(pair), pair["truth"], face)
        assert after < 0.5 * before, seed


def test_a_head_that_turns_away_is_what_the_still_shall_become(pairs: Pairs) -> None:
    """The photo is the still, aligned about as stills are; the truth is turned; nothing but the pose has changed."""
    turns = []
    for seed in range(12):
        pair = pairs.reanimated(int(pairs.stills[0]), np.random.default_rng(seed), "turn")
        still, turned = pair["target"], pair["driving"]
        turns.append(abs(fit_pose(turned, lift(still))[YAW]))
        for opening in (mouth_opening, eye_opening):
            assert opening(turned) == pytest.approx(opening(still), abs=2.5)
        face = on_face(pair)
        assert difference(warped(pair), pair["truth"], face) < 0.5 * difference(pair["photo"], pair["truth"], face)
    assert max(turns) > np.radians(15)


def test_chance_brings_every_kind_of_reanimation(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for name in ("_blinking", "_turned", "changed"):
        made = getattr(pairs, name)
        monkeypatch.setattr(pairs, name, lambda *a, made=made, name=name, **k: seen.append(name) or made(*a, **k))
    for seed in range(12):
        pairs.reanimated(int(pairs.stills[0]), np.random.default_rng(seed))
    assert set(seen) == {"_blinking", "_turned", "changed"}


def test_the_flow_between_frames_makes_one_of_the_other(pairs: Pairs) -> None:
    clip = pairs.clips[0]
    for truth in clip[1:]:
        pair = pairs.two(int(clip[0]), int(truth), None)
        face = on_face(pair)
        assert difference(warped(pair), pair["truth"], face) < 0.6 * difference(pair["photo"], pair["truth"], face)


def test_the_flow_carries_the_landmarks(pairs: Pairs) -> None:
    clip = pairs.clips[0]
    pair = pairs.two(int(clip[0]), int(clip[1]), None)
    inner = [18, 22, 26, 30, 37, 43]  # corners of the eyes, middles of the outer lips: away from depth edges
    cells = np.round((pair["driving"][inner] + 0.5) / (256 / pair["flow"].shape[-1]) - 0.5).astype(int)
    moved = pair["driving"][inner] + pair["flow"][:, cells[:, 1], cells[:, 0]].T
    still = np.linalg.norm(pair["driving"][inner] - pair["target"][inner], axis=1).mean()
    assert np.linalg.norm(moved - pair["target"][inner], axis=1).mean() < max(2.0, 0.4 * still)


def test_no_motion_is_no_flow(pairs: Pairs) -> None:
    frame = int(pairs.clips[0][0])
    pair = pairs.two(frame, frame, None)
    assert np.abs(pair["flow"]).max() < 0.01
    assert np.array_equal(pair["photo"], pair["truth"])


def test_triangles_cover_the_picture_and_invert(pairs: Pairs, pictures: Pictures) -> None:
    surface = pairs.surface
    mesh = pictures.mesh[0] - np.float32([MARGIN, MARGIN, 0])
    still = surface.extend(mesh, mesh)
    changed = mesh.copy()
    changed[:, :2] = (changed[:, :2] - 128) @ np.float32([[0.99, -0.05], [0.05, 0.99]]) + 131
    moved = surface.extend(changed, mesh)
    there, inside = surface.flow(still, moved, 128, 2.0)
    back, _ = surface.flow(moved, still, 128, 2.0)
    assert inside.mean() > 0.1
    at = ((there + 0.5) / 2 - 0.5).astype(np.float32)
    returned = cv2.remap(back, at[..., 0], at[..., 1], cv2.INTER_LINEAR)
    cells = (np.arange(128) + 0.5) * 2 - 0.5
    home = np.stack(np.meshgrid(cells, cells), -1)
    assert np.median(np.linalg.norm(returned - home, axis=-1)[inside]) < 0.3
    rims = set(IRISES[:, 1:].ravel())  # reach under the lids, and are left out
    assert set(np.unique(surface.triangles)) == set(range(len(still))) - rims


def test_a_mesh_that_turns_away_keeps_its_outline_around_it(pairs: Pairs, pictures: Pictures) -> None:
    mesh = pictures.mesh[0] - np.float32([MARGIN, MARGIN, 0])
    np.testing.assert_allclose(pairs.surface.extend(mesh, mesh)[:478], mesh, atol=1e-3)
    for yaw in (-0.5, 0.5):
        turned = (mesh @ turn(yaw, 0, 0).T).astype(np.float32)
        hull = cv2.convexHull(turned[INSIDE_OVAL, :2])
        behind = [
            max(cv2.pointPolygonTest(hull, point.tolist(), True) for point in points[OVAL, :2])
            for points in (turned, pairs.surface.extend(turned, mesh))
        ]
        assert behind[0] > 10, "pixels that the outline goes behind the face"
        assert behind[1] < 2


def test_rigid_fit_undoes_a_turn(pictures: Pictures) -> None:
    a = pictures.mesh[0].astype(np.float64)
    rotation = 1.1 * turn(0.2, -0.1, 0.05)
    found, shift = rigid_fit(a, a @ rotation.T + [3, -2, 1])
    assert np.allclose(found, rotation, atol=1e-6)
    assert np.allclose(shift, [3, -2, 1], atol=1e-4)


def test_augmented_pairs_keep_their_flow(pairs: Pairs) -> None:
    mirrored = set()
    for seed in range(6):
        plain = pairs.reanimated(int(pairs.stills[1]), np.random.default_rng(seed))
        pair = augmented(dict(plain), np.random.default_rng(seed))
        mirrored.add(bool(np.abs(pair["weight"] - plain["weight"]).max() > 0))
        assert pair["driving"][18, 0] < pair["driving"][30, 0]  # "left" is left in the picture
        pair |= {name: pair[name].transpose(1, 2, 0).copy() for name in ("photo", "truth")}
        face = on_face(pair)
        before, after = difference(pair["photo"], pair["truth"], face), difference(warped(pair), pair["truth"], face)
        assert after < 0.6 * before, seed
    assert mirrored == {True, False}


@pytest.mark.parametrize("kind", ["turn", "change"])
def test_the_head_of_a_pair_is_its_photos(pairs: Pairs, kind: str) -> None:
    """Whichever of the two is the photo, moving its head by the landmarks leads there from the truth."""
    for seed in range(4):
        pair = pairs.reanimated(int(pairs.stills[0]), np.random.default_rng(seed), kind)
        prior = conditions({name: array[None] for name, array in pair.items()}, 256)["prior"][0, :2]
        face = cv2.erode(pair["weight"], np.ones((9, 9))) > 0.5
        still, off = (np.linalg.norm(flow[:, face], axis=0).mean() for flow in (pair["flow"], prior - pair["flow"]))
        assert off < max(0.4 * still, 1), seed


def test_a_changed_photos_head_has_changed_with_it(pairs: Pairs) -> None:
    index = int(pairs.stills[0])
    for seed in range(4):
        pair = pairs.reanimated(index, np.random.default_rng(seed), "change")
        matrix = similarity(pairs.pictures.points[index], pair["driving"])
        before, after = (
            head[OUTLINE_COUNT:] for head in (transform(pairs.pictures.mesh[index, HEAD, :2], matrix), pair["own"])
        )
        cells = np.round((before + 0.5) / (CROP_SIZE / pair["flow"].shape[-1]) - 0.5).astype(int)
        shown = before + pair["flow"][:, cells[:, 1], cells[:, 0]].T
        assert np.median(np.linalg.norm(after - shown, axis=1)) < 0.5
        assert np.median(np.linalg.norm(after - before, axis=1)) > 1


@pytest.mark.parametrize("kind", ["turn", "change"])
def test_what_is_beside_the_person_stays_in_reanimated_stills(
    pairs: Pairs, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Striped stills: what moves shows."""
    index = int(pairs.stills[0])
    face = pairs.pictures.points[index, :, 0]
    stripes = np.repeat(np.tile(np.uint8([[0], [255]]), (4 * PICTURE_SIZE // 8, 1)), 4, 0)[:PICTURE_SIZE]
    striped = np.repeat(np.tile(stripes, PICTURE_SIZE)[..., None], 3, -1).transpose(1, 0, 2).copy()
    monkeypatch.setattr(pairs.pictures, "image", lambda _: striped)
    moved = []
    for edge in (PICTURE_SIZE, face.max() + 2):  # all is person; what is left of the edge is
        person = np.tile(np.arange(PICTURE_SIZE // CELL) * CELL < edge, (PICTURE_SIZE // CELL, 1))
        monkeypatch.setattr(pairs.pictures, "mask", lambda _, person=person: person)
        pair = pairs.reanimated(index, np.random.default_rng(3), kind)
        moved.append(np.abs(pair["photo"].astype(int) - pair["truth"])[:, -8:].mean())
    assert moved[1] < 0.5 * moved[0]


def test_a_mirrored_pair_has_a_mirrored_head(pairs: Pairs) -> None:
    rng = np.random.default_rng(2)
    plain = pairs.reanimated(int(pairs.stills[1]), rng, "change")
    plain["apart"] = rng.uniform(0, 20, plain["apart"].shape).astype(np.float32)
    flips = 0
    for seed in range(4):
        pair = augmented(dict(plain), np.random.default_rng(seed))
        asked, made = (conditions({k: v[None] for k, v in one.items()}, 256)["prior"][0, :2] for one in (plain, pair))
        if np.abs(pair["weight"] - plain["weight"]).max() > 0:
            flips += 1
            np.testing.assert_array_equal(pair["apart"], plain["apart"][:, -np.arange(OUTLINE_COUNT)])
            asked = asked[:, :, ::-1] * np.float32([-1, 1])[:, None, None]
        assert np.median(np.abs(made - asked)) < 0.1
    assert 0 < flips < 4


def test_draws_depend_on_the_generator_alone(pairs: Pairs) -> None:
    a, b = (pairs.draw(np.random.default_rng((7, 3))) for _ in range(2))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_training_never_sees_held_out_people(pictures: Pictures) -> None:
    trained, checked = Pairs(pictures, 64), Pairs(pictures, 64, validation=True)
    a, b = ({pictures.persons[i] for i in np.r_[p.stills, *p.clips]} for p in (trained, checked))
    assert a
    assert b
    assert not a & b


def test_skipped_frames_are_not_used(pictures: Pictures) -> None:
    clip = str(pictures.clips[Pairs(pictures, 64).clips[0][0]])
    left = Pairs(pictures, 64, skip={clip: range(1, 4)}).clips[0]
    assert [str(pictures.names[i]).rsplit(":", 1)[1] for i in left] == ["0", "4"]


def test_the_window_is_one_inside_and_zero_at_the_border() -> None:
    window = torch.from_numpy(border_window(256))
    assert window[128, 128] == 1
    assert window[0].max() < 0.01


def test_closed_lids_meet_and_draw_the_skin_down(pictures: Pictures) -> None:
    mesh = pictures.mesh[0].astype(np.float64)
    before = mesh.copy()
    close_lids(mesh, 0.0)
    np.testing.assert_allclose(mesh[UPPER_LIDS], mesh[LOWER_LIDS], atol=1e-6)
    lid, skin = ((mesh - before)[rows, 1].mean() for rows in (UPPER_LIDS, ABOVE_LIDS[:, 0]))
    assert 0 < skin < lid
    assert np.array_equal(mesh[UPPER_INNER_LIP], before[UPPER_INNER_LIP])


def test_stills_for_the_detector_gape_and_shut_their_eyes(pairs: Pairs) -> None:
    still = pairs.pictures.points[pairs.stills[0]][None]
    drawn = [pairs.warped(int(pairs.stills[0]), np.random.default_rng(seed)) for seed in range(30)]
    points = np.stack([points for _, points in drawn])
    assert (mouth_opening(points) - mouth_opening(still)).max() > 30
    assert eye_opening(points).min() < 0.3 * eye_opening(still)[0]
    assert (np.abs(mouth_opening(points) - mouth_opening(still)) < 10).any()  # and others do not gape
    assert all(image.shape == (256, 256, 3) for image, _ in drawn)


def test_the_inside_of_the_mouth_lies_between_the_lips() -> None:
    points = MEAN_FACE[:, :2].astype(np.float32)
    points[[51, 52, 53], 1] += 14
    inside = mouth_interior(points, 128)
    rows, columns = np.nonzero(inside)
    assert points[48, 1] / 2 - 1 <= rows.min()
    assert rows.max() <= points[52, 1] / 2 + 1
    assert points[46, 0] / 2 - 1 <= columns.min()
    assert columns.max() <= points[50, 0] / 2 + 1
    assert inside.sum() > 60


def test_two_views_of_a_face_lie_side_by_side(pictures: Pictures) -> None:
    task = DetectorTask(pictures, LIVE, 1e-3)
    samples = [task.sample(np.random.default_rng(number)) for number in range(3)]
    crops, points = (np.concatenate([sample[name] for sample in samples]) for name in ("crop", "points"))
    assert crops.shape == (6, 3, 256, 256)
    assert np.abs(points[::2] - points[1::2]).max() < 5
    assert np.abs(crops[::2].astype(int) - crops[1::2]).mean() < 12
    assert np.abs(points[1:-1:2] - points[2::2]).max() > 5, "the next face is another one"
