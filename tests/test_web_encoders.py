"""What encodes the results: sharp at the bit rate that suits, and key frames only when there is a reason."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from aiortc.codecs import h264_depayload, vp8_depayload
from av.video.reformatter import ColorRange, Colorspace

from realtime.photo import load_photo
from web.encoders import H264Encoder, Vp8Encoder, suited_bitrate
from web.performer import fit

RATE, BANDWIDTH = 30, 8_000_000
CODECS = [("vp8", Vp8Encoder, vp8_depayload), ("h264", H264Encoder, h264_depayload)]


def swaying_portrait(count: int) -> list[av.VideoFrame]:
    """The portrait at 512 px, whose lower half sways."""
    portrait, pictures = fit(load_photo("hopper"), 512), []
    half = portrait.shape[0] // 2
    for index in range(count):
        image = portrait.copy()
        image[half:] = np.roll(portrait[half:], round(6 * np.sin(index / 3)), 1)
        picture = av.VideoFrame.from_ndarray(image, "rgb24")
        picture.pts, picture.time_base = 90_000 // RATE * index, Fraction(1, 90_000)
        pictures.append(picture)
    return pictures


@pytest.mark.parametrize(("name", "encoder", "depayload"), CODECS)
def test_a_result_is_sharp_at_the_bit_rate_that_suits_it(
    name: str, encoder: Callable[[], Any], depayload: Callable[[bytes], bytes]
) -> None:
    coder, decoder, pictures = encoder(), av.CodecContext.create(name, "r"), swaying_portrait(30)
    coder.target_bitrate = BANDWIDTH  # of which it takes no more than it needs
    sizes, keys = [], []
    for index, picture in enumerate(pictures):
        coder.target_bitrate = BANDWIDTH - 10_000 * index  # as the network's estimate wavers
        payloads, stamp = coder.encode(picture, force_keyframe=index == 20)
        assert stamp == picture.pts
        sizes.append(sum(map(len, payloads)))
        packet = av.Packet(b"".join(map(depayload, payloads)))
        (seen,) = decoder.decode(packet)
        keys.append(seen.key_frame)
    assert [index for index, key in enumerate(keys) if key] == [0, 20]
    right = pictures[-1].reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG)
    error = seen.to_ndarray().astype(float) - right.to_ndarray()
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 34
    suited = suited_bitrate(pictures[0].width, pictures[0].height, BANDWIDTH)
    assert suited < BANDWIDTH / 4
    assert np.mean(sizes[1:20]) * 8 * RATE < 1.2 * suited


@pytest.mark.parametrize(("name", "encoder", "depayload"), CODECS)
def test_a_narrow_network_gets_fewer_bits(
    name: str, encoder: Callable[[], Any], depayload: Callable[[bytes], bytes]
) -> None:
    del name, depayload
    wide, narrow = encoder(), encoder()
    wide.target_bitrate, narrow.target_bitrate = BANDWIDTH, 600_000
    sizes = [
        sum(len(payload) for picture in swaying_portrait(12) for payload in coder.encode(picture)[0])
        for coder in (wide, narrow)
    ]
    assert sizes[1] < 0.7 * sizes[0]
