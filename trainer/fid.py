"""Frechet inception distance (Heusel et al. 2017; thesis 5.4.2) between two sets of pictures."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from trainer.inception import Inception
from trainer.weights import load_public

INCEPTION = "Inception v3 of pytorch-fid (pt_inception-2015-12-05-6726825d.pth)"
Describe = Callable[[Iterable[np.ndarray]], np.ndarray]  # RGB uint8 pictures -> (N, 2048)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Between the Gaussians that fit two sets of features, (N, D) and (M, D):
    |mean difference|^2 + trace(A + B - 2 (A B)^(1/2)) of their covariances; NaN for sets of fewer than two."""
    if min(len(a), len(b)) < 2:
        return float("nan")
    a, b = a.astype(np.float64), b.astype(np.float64)
    # With centred features scaled so that A = X'X and B = Y'Y, the trace of (A B)^(1/2) is the sum of XY's singular
    # values: exact for fewer pictures than features, where covariances have no root to compute safely.
    x, y = ((f - f.mean(0)) / np.sqrt(len(f) - 1) for f in (a, b))
    roots = np.linalg.svd(x @ y.T, compute_uv=False)
    shift = np.square(a.mean(0) - b.mean(0)).sum()
    return float(max(0.0, shift + np.square(x).sum() + np.square(y).sum() - 2 * roots.sum()))


def distance(made: Sequence[np.ndarray], real: Sequence[np.ndarray], describe: Describe | None) -> float:
    """The FID of results against real pictures, RGB uint8; NaN without Inception's weights."""
    return frechet_distance(describe(made), describe(real)) if describe else float("nan")


def note(describe: Describe | None) -> str:
    """What a table says of its FID column."""
    if describe is None:
        return " FID: a dash, as Inception's weights are not part of the project; --inception names a file of them."
    return " FID: of the results against the real photos and sources; with few pictures it is far above its limit."


def inception(path: Path) -> Describe:
    """Inception's features by a weight file. Raises InputError if it does not fit."""
    network = Inception()
    load_public(network, path, INCEPTION)
    network.eval()

    @torch.no_grad()
    def describe(pictures: Iterable[np.ndarray]) -> np.ndarray:
        made = [network(torch.from_numpy(p).permute(2, 0, 1)[None].float() / 255)[0].numpy() for p in pictures]
        return np.stack(made) if made else np.zeros((0, 2048), np.float32)

    return describe
