"""Every loss and every metric against values worked out by hand."""

import numpy as np
import pytest
import torch

from realtime.landmarks import COUNT, LIPS
from trainer import losses, metrics
from trainer.detector import DetectorSettings
from trainer.train_detector import coordinate_losses, gaussians, iou_loss
from trainer.train_generator import mouth_windows


def picture(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)[None, None]


ONE = picture([1, 1], [1, 1])


def test_weighted_l1_is_the_mean_difference_under_a_weight() -> None:
    a, b = picture([0, 1], [2, 3]), picture([1, 1], [0, 3])
    assert losses.weighted_l1(a, b, ONE).item() == pytest.approx(3 / 4)
    assert losses.weighted_l1(a, b, picture([5, 1], [1, 1])).item() == pytest.approx(7 / 4)


def test_the_pyramid_averages_the_levels() -> None:
    a, b = picture([0, 1], [2, 3]), picture([1, 1], [0, 3])
    # halved: the means 1.5 and 1.25
    assert losses.pyramid_l1(a, b, ONE, levels=2).item() == pytest.approx((0.75 + 0.25) / 2)
    assert losses.pyramid_l1(a, b, ONE, levels=1).item() == pytest.approx(0.75)


def test_gradient_difference_sees_edges_and_not_levels() -> None:
    a = picture([0, 1], [0, 1])
    assert losses.gradient_difference(a + 5, a, ONE).item() == 0
    assert losses.gradient_difference(a, picture([0, 0], [0, 0]), ONE).item() == pytest.approx(1)  # across 1, down 0


def test_masked_l1_counts_only_the_mask() -> None:
    a, b = picture([0, 1], [2, 3]), picture([1, 1], [0, 3])
    assert losses.masked_l1(a, b, picture([1, 0], [1, 0])).item() == pytest.approx(3 / (2 + 1))
    assert losses.masked_l1(a, b, 0 * ONE).item() == 0


def test_the_mask_keeps_the_photo_where_nothing_is_hidden() -> None:
    hidden = picture([1, 0], [0, 0])
    assert losses.mask_entropy(0.5 * ONE, hidden).item() == pytest.approx(np.log(2))
    assert losses.mask_entropy(picture([0, 0.5], [1, 1]), hidden).item() == pytest.approx(np.log(2) / 4, abs=1e-3)
    assert losses.mask_entropy(1 - hidden, hidden).item() == pytest.approx(0, abs=1e-3)


def test_flow_error_is_square_near_zero_and_straight_beyond() -> None:
    flow = torch.tensor([0.5, 3.0]).view(1, 2, 1, 1)
    weight = torch.tensor([[[2.0]]])
    assert losses.flow_error(flow, torch.zeros_like(flow), weight).item() == pytest.approx(2 * (0.125 + 2.5))


def test_lsgan() -> None:
    score = torch.tensor([0.0, 3.0])
    assert losses.lsgan(score, real=True).item() == pytest.approx((1 + 4) / 2)
    assert losses.lsgan(score, real=False).item() == pytest.approx(9 / 2)


def test_iou_loss_is_the_thesis_s() -> None:
    a, b = picture([1, 0.5], [0, 0]), picture([0.5, 0.5], [1, 0])
    assert iou_loss(a, b).item() == pytest.approx(1 - 1 / (1.5 + 2 - 1), abs=1e-5)
    assert iou_loss(a, a).item() == pytest.approx(0, abs=1e-6)
    assert iou_loss(a, 0 * a).item() == pytest.approx(1, abs=1e-5)


def test_gaussians_are_those_of_the_live_loop() -> None:
    from realtime.landmarks import render_heatmaps

    points = np.random.default_rng(0).uniform(10, 240, (COUNT, 2)).astype(np.float32)
    truth = gaussians(torch.from_numpy(points)[None], DetectorSettings(stride=4))[0]
    assert np.allclose(truth.numpy(), render_heatmaps(points), atol=1e-5)


def test_coordinate_losses_are_zero_on_the_truth_and_grow_with_the_distance() -> None:
    settings = DetectorSettings(stride=4)
    points = torch.full((2, COUNT, 2), 101.5)  # the middle of a cell: (101.5 + 0.5) / 4 - 0.5 = 25
    made = gaussians(points, settings)
    assert max(coordinate_losses(made, points, 4).values()).item() == pytest.approx(0, abs=1e-4)
    off = [coordinate_losses(gaussians(points + shift, settings), points, 4) for shift in (2.0, 4.0)]
    assert 0.2 < off[0]["coordinates"] < off[1]["coordinates"]
    assert off[1]["gaps"].item() == pytest.approx(0, abs=1e-3), "both rims moved alike: the gaps are right"
    assert off[1]["trembling"].item() == pytest.approx(0, abs=1e-3), "both views are off alike"


def test_the_gap_between_lips_is_a_loss_of_its_own() -> None:
    settings = DetectorSettings(stride=4)
    points = torch.full((2, COUNT, 2), 101.5)
    closed = points.clone()
    points[:, 52, 1] += 4  # one cell lower: the middle of the inner lower lip
    found = coordinate_losses(gaussians(closed, settings), points, 4)
    assert found["coordinates"].item() == pytest.approx(0.95 / COUNT, abs=0.003)  # |1| - 0.1 / 2
    assert found["gaps"].item() == pytest.approx(0.95 / 12, abs=0.01)


def test_points_that_move_where_the_face_does_not_are_a_loss_of_their_own() -> None:
    settings = DetectorSettings(stride=4)
    points = torch.full((2, COUNT, 2), 101.5)
    points[1] += 4  # the second view is moved by a cell
    found = points.clone()
    found[1, 20, 0] += 4  # where one point is found another cell to the right
    trembling = coordinate_losses(gaussians(found, settings), points, 4)["trembling"]
    assert trembling.item() == pytest.approx(1.0 / COUNT, abs=0.003)


def test_landmark_maps() -> None:
    maps = torch.zeros(1, COUNT, 8, 8)
    maps[0, :2, 4, 4] = 1
    channel = losses.landmark_channel(maps, 8)
    assert channel.sum().item() == 1  # two landmarks in one place count once
    weight = losses.landmark_weight(maps, 8)
    assert weight[0, 0, 4, 4].item() == 5
    assert weight[0, 0, 3, 3].item() == 5
    assert weight[0, 0, 0, 0].item() == 1


def test_sharp_parts_are_eyes_and_lips() -> None:
    heatmaps = torch.zeros(1, COUNT, 8, 8)
    heatmaps[0, 0, 1, 1] = 1  # a brow
    assert losses.sharp_parts(heatmaps, 16).max() == 0
    heatmaps[0, 20, 5, 5] = 1  # a lid: itself and its neighbours
    assert losses.sharp_parts(heatmaps, 8)[0, 0].sum() == 9


def test_the_adversary_looks_at_the_mouth() -> None:
    points = torch.full((2, COUNT, 2), 128.0)
    points[0, LIPS] = torch.tensor([128.0, 180.0])
    points[1, LIPS] = torch.tensor([20.0, 250.0])  # near the border: the window stays inside
    pictures = torch.zeros(2, 3, 128, 128)
    pictures[0, :, 90, 64] = pictures[1, :, 127, 0] = 1
    windows = mouth_windows(pictures, points)
    assert windows.shape == (2, 3, 40, 64)
    assert windows[0, 0].nonzero().tolist() == [[20, 32]]
    assert windows[1, 0].nonzero().tolist() == [[39, 0]]


def test_the_discriminator_scores_patches() -> None:
    discriminator, pictures = losses.PatchDiscriminator(8), torch.rand(2, 4, 64, 64)
    scores = discriminator(pictures)
    assert scores.shape == (2, 1, 10, 10)
    features = discriminator.features(pictures)
    assert torch.equal(features[-1], scores)
    assert [feature.shape[1] for feature in features] == [8, 16, 32, 64, 1]


def test_feature_matching_is_the_mean_difference_of_every_layer() -> None:
    made = [torch.zeros(1, 2, 2, 2), torch.ones(1, 1, 1, 1)]
    real = [torch.full((1, 2, 2, 2), 3.0), torch.zeros(1, 1, 1, 1)]
    assert losses.feature_matching(made, real).item() == 2.0


def face() -> np.ndarray:
    """Points whose eyes lie 50 pixels apart, and eyes and mouth closed."""
    points = np.zeros((COUNT, 2), np.float32)
    points[[26, 30]] = [50, 0]
    points[27:30, 0] = points[31:34, 0] = 50
    return points


def test_error_percent() -> None:
    truth = face()
    found = truth.copy()
    found[0] = [3, 4]
    found[1] = np.nan
    assert metrics.error_percent(found[None], truth[None])[0] == pytest.approx(100 * 5 / 55 / 50)
    assert metrics.error_percent(found[None], truth[None], np.array([0]))[0] == pytest.approx(10)
    assert np.isnan(metrics.error_percent(found[None], truth[None], np.array([1]))[0])


def test_openings() -> None:
    points = face()
    points[23:26, 1] += 5  # the left eye's lower lid
    points[51:54, 1] += 10  # the lower inner lip
    assert metrics.eye_opening(points) == pytest.approx(5)  # 10 % of one eye, 0 % of the other
    assert metrics.mouth_opening(points) == pytest.approx(20)


def test_carried_over_is_the_share_of_the_change() -> None:
    photo, truth = np.zeros(3), np.array([10.0, 20, -10])
    assert metrics.carried_over(0.8 * truth, truth, photo) == pytest.approx(80)
    assert metrics.carried_over(photo, truth, photo) == 0
    assert np.isnan(metrics.carried_over(photo, photo, photo))


def test_picture_metrics() -> None:
    black = np.zeros((32, 32, 3), np.uint8)
    grey = np.full((32, 32, 3), 51, np.uint8)
    assert metrics.l1(black, grey) == pytest.approx(0.2)
    assert metrics.psnr(black, grey) == pytest.approx(-20 * np.log10(0.2))
    assert metrics.psnr(grey, grey) == pytest.approx(60)
    assert metrics.ssim(grey, grey) == pytest.approx(1)
    # two flat pictures: only the luminance term is left
    c1 = (0.01 * 255) ** 2
    assert metrics.ssim(black, grey) == pytest.approx(c1 / (51**2 + c1), rel=1e-3)
    assert metrics.cosine_similarity(np.array([1.0, 0]), np.array([1.0, 1.0])) == pytest.approx(2**-0.5)
