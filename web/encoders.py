"""What encodes the results: aiortc's VP8 and H.264, set for a photo that moves, on few cores."""

from fractions import Fraction

import aiortc.codecs
import av
from aiortc.codecs import h264, vpx
from aiortc.mediastreams import VIDEO_TIME_BASE, convert_timebase
from av.frame import Frame
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

RATE = 30  # frames per second, at most
SUITED = 7.5  # bits per second and pixel: 2 Mbit/s at 512x512
MOST_BITRATE = 8_000_000
FALL, RISE = 0.8, 1.5  # the bandwidth may change so much before an encoder, and with it a key frame, is made anew
# aiortc's VP8 removes noise, which a photo has not: at the same bit rate that costs 4 dB and a quarter of the time.
VP8 = {
    "deadline": "realtime",
    "cpu-used": "-8",
    "lag-in-frames": "0",
    "qmin": "2",
    "qmax": "56",
    "overshoot-pct": "15",
    "undershoot-pct": "100",
}
# x264's own preset takes seven times as long for half a decibel.
H264 = {"preset": "superfast", "tune": "zerolatency", "level": "31"}


def suited_bitrate(width: int, height: int, bandwidth: int) -> int:
    """Bits per second for a picture of this size, as far as the network's `bandwidth` goes."""
    return min(bandwidth, MOST_BITRATE, round(SUITED * width * height))


def _codec(name: str, options: dict[str, str], picture: av.VideoFrame, bitrate: int) -> VideoCodecContext:
    made = VideoCodecContext.create(name, "w")
    assert isinstance(made, VideoCodecContext)
    made.width, made.height, made.pix_fmt = picture.width, picture.height, "yuv420p"
    made.time_base, made.framerate = VIDEO_TIME_BASE, Fraction(RATE)
    made.bit_rate, made.gop_size = bitrate, 100 * RATE  # key frames come when they are asked for
    # A constant bit rate: a picture that is late is worse than one that is blocky.
    made.options = {**options, "minrate": str(bitrate), "maxrate": str(bitrate), "bufsize": str(bitrate)}
    made.thread_count = 1
    return made


def _fits(codec: VideoCodecContext, picture: av.VideoFrame, bitrate: int) -> bool:
    same = (codec.width, codec.height) == (picture.width, picture.height)
    return same and FALL <= bitrate / (codec.bit_rate or 1) <= RISE


class _Colours:
    """RGB pictures as encoders take them, by tables that are made once."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def packet(self, codec: VideoCodecContext, picture: av.VideoFrame, force_keyframe: bool) -> bytes:
        yuv = self._reformatter.reformat(
            picture, format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG
        )
        yuv.pts, yuv.time_base = picture.pts, picture.time_base
        yuv.pict_type = PictureType.I if force_keyframe else PictureType.NONE
        return b"".join(bytes(packet) for packet in codec.encode(yuv))


def _stamp(picture: av.VideoFrame) -> int:
    return convert_timebase(picture.pts or 0, picture.time_base or VIDEO_TIME_BASE, VIDEO_TIME_BASE)


class Vp8Encoder(vpx.Vp8Encoder):
    """aiortc's, with other settings, for RGB pictures."""

    def __init__(self) -> None:
        super().__init__()
        self._colours = _Colours()

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        assert isinstance(frame, av.VideoFrame)
        bitrate = suited_bitrate(frame.width, frame.height, self.target_bitrate)
        if self.codec is None or not _fits(self.codec, frame, bitrate):
            self.codec = _codec("libvpx", VP8, frame, bitrate)
        payloads = self._packetize(self._colours.packet(self.codec, frame, force_keyframe), self.picture_id)
        self.picture_id = (self.picture_id + 1) % (1 << 15)
        return payloads, _stamp(frame)


class H264Encoder(h264.H264Encoder):
    """aiortc's, with other settings, for RGB pictures."""

    def __init__(self) -> None:
        super().__init__()
        self._colours = _Colours()

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        assert isinstance(frame, av.VideoFrame)
        bitrate = suited_bitrate(frame.width, frame.height, self.target_bitrate)
        if self.codec is None or not _fits(self.codec, frame, bitrate):
            self.codec = _codec("libx264", H264, frame, bitrate)
            self.codec.profile = "Baseline"
        units = self._split_bitstream(self._colours.packet(self.codec, frame, force_keyframe))
        return self._packetize(units), _stamp(frame)


def prepare_encoders() -> None:
    """Have aiortc take these encoders, and begin at a bandwidth of which they take what suits the picture."""
    for codec in (vpx, h264):
        vars(codec).update(DEFAULT_BITRATE=MOST_BITRATE, MAX_BITRATE=MOST_BITRATE)
    vars(aiortc.codecs).update(Vp8Encoder=Vp8Encoder, H264Encoder=H264Encoder)
