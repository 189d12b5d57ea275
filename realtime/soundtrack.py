"""The sound of a source file on its way into an MP4."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from realtime.sources import open_media, start_of

# What MP4 players understand. MP4 may carry MP2 and PCM too, but browsers do not play them there.
COPIED = {"aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"}
AAC_RATES = {96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000}


class Soundtrack:
    """Copies the best audio stream of a file into an MP4, or encodes it as AAC where MP4 players would not take it.

    Time stamps are the source's. It reads the file only as far as `write` asks, so that memory stays bounded.
    """

    def __init__(self, path: Path, output: OutputContainer) -> None:
        self._input = open_media(path)
        self._output = output
        self._start = start_of(self._input)
        self._written = Fraction(-1)
        stream = self._input.streams.best("audio")
        if not isinstance(stream, AudioStream):
            self._packets: Iterator[Packet[Any]] = iter(())
        elif stream.codec_context.codec.canonical_name in COPIED:
            self._packets = self._copy(stream)
        else:
            self._packets = self._encode(stream)

    def write(self, until: Fraction | None = None) -> None:
        """Mux the sound up to a time in seconds, or all that is left."""
        while until is None or self._written < until:
            packet = next(self._packets, None)
            if packet is None:
                return
            if packet.pts is not None:
                self._written = packet.pts * packet.time_base
            self._output.mux(packet)

    def _copy(self, stream: AudioStream) -> "Iterator[Packet[Any]]":
        copy = self._output.add_stream_from_template(stream)

        def packets() -> "Iterator[Packet[Any]]":
            last = None
            for packet in self._input.demux(stream):
                if packet.pts is None or packet.dts is None or (last is not None and packet.dts <= last):
                    continue  # the end of the file, or damage that MP4 cannot hold
                last = packet.dts
                shift = round(self._start / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                yield packet

        return packets()

    def _encode(self, stream: AudioStream) -> "Iterator[Packet[Any]]":
        rate = stream.rate if stream.rate in AAC_RATES else 48000
        encoder = self._output.add_stream("aac", rate=rate, layout="mono" if stream.channels == 1 else "stereo")
        encoder.bit_rate = 160_000

        def packets() -> "Iterator[Packet[Any]]":
            for packet in self._input.demux(stream):
                try:
                    decoded = packet.decode()
                except av.FFmpegError:  # as players do, skip what cannot be decoded
                    continue
                for sound in decoded:
                    if sound.pts is not None and sound.time_base is not None:
                        sound.pts -= round(self._start / sound.time_base)
                    yield from encoder.encode(sound)
            yield from encoder.encode(None)

        return packets()

    def close(self) -> None:
        """Give back the source file; the output stays open."""
        self._input.close()
