"""The generator's own arithmetic: upsampling in phases, and pictures that interleave."""

import torch
from torch.nn import functional as F

from trainer.generator import shuffled, up, upsampled


def test_phases_interleave_to_the_upsampled_picture() -> None:
    x = torch.rand(2, 1, 9, 12, generator=torch.Generator().manual_seed(0))
    whole = F.pixel_shuffle(upsampled(x), 2)
    inner = (..., slice(2, -2), slice(2, -2))  # beyond the border a convolution sees zeros
    assert torch.allclose(whole[inner], up(x)[inner], atol=1e-6)


def test_four_pictures_interleave_channel_by_channel() -> None:
    phases = torch.stack([torch.full((3, 2, 2), float(phase)) for phase in range(4)])
    phases += torch.tensor([0.0, 0.1, 0.2])[:, None, None]
    whole = shuffled(phases.reshape(1, 12, 2, 2))
    assert whole.shape == (1, 3, 4, 4)
    for phase in range(4):
        assert torch.equal(whole[0, :, phase // 2 :: 2, phase % 2 :: 2], phases[phase])
