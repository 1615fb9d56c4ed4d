"""A clip's sound on its way into a new file: copied packet by packet where the container takes its codec, else encoded
anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

from videogen.clip import Audio
from videogen.errors import InputError
from videogen.files import address

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

MP4 = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"})
# container format -> the codecs it carries, and the one to encode to
CARRIES = {
    "mp4": (MP4, "aac"),
    "mov": (MP4 - {"flac", "opus"} | {"pcm_s16le"}, "aac"),
    "matroska": (MP4 | {"vorbis", "pcm_s16le", "pcm_s16be"}, "aac"),
    "webm": (frozenset({"opus", "vorbis"}), "libopus"),
}
RATE = 48000  # of sound that is encoded anew
GAP = RATE // 10  # samples; less is the rounding of a container's times


class Sound:
    """The sound of one file, `seconds` long from where the clip begins, bound to a stream of `output`.

    Make it before the first packet is written. `packets(until)` yields what belongs before a time; `close` frees the
    source. Raises InputError where the source has gone or holds no sound.
    """

    def __init__(self, audio: Audio, output: OutputContainer, seconds: Fraction) -> None:
        try:
            self.source: InputContainer = av.open(address(audio.source))
        except (OSError, av.FFmpegError) as problem:
            raise InputError(f"the sound in {audio.source} cannot be read ({problem})") from problem
        if not self.source.streams.audio:
            raise InputError(f"{audio.source} has no sound")
        self.begin, self.end = audio.start, audio.start + seconds
        self.input = self.source.streams.audio[0]
        codecs, codec = CARRIES[output.format.name]
        self.copied = self.input.codec_context.name in codecs
        self.stream: Any
        if self.copied:
            self.stream = output.add_stream_from_template(self.input)
        else:
            self.stream = output.add_stream(codec, rate=RATE)
            self.stream.layout = "mono" if self.input.codec_context.channels == 1 else "stereo"
        self._packets = self._copied() if self.copied else self._encoded()
        self._next: Any = next(self._packets, None)

    def packets(self, until: Fraction | None = None) -> Iterator[Any]:
        """The packets that begin before `until` seconds of the clip; all that are left without it."""
        while self._next is not None:
            if until is not None and self._next.pts is not None and self._next.pts * self._next.time_base >= until:
                return
            yield self._next
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Close the source file."""
        self.source.close()

    def _copied(self) -> Iterator[Any]:
        for packet in self.source.demux(self.input):
            if packet.pts is None or packet.dts is None:
                continue
            at = packet.pts * packet.time_base
            if at >= self.end:
                return
            if self.begin:
                if at + (packet.duration or 0) * packet.time_base <= self.begin:
                    continue
                shift = round(self.begin / packet.time_base)
                packet.pts, packet.dts = max(packet.pts - shift, 0), max(packet.dts - shift, 0)
            # from the very beginning the decoder's priming goes along, at its time before 0
            packet.stream = self.stream
            yield packet

    def _encoded(self) -> Iterator[Any]:
        layout = self.stream.layout.name
        to = av.AudioResampler(format=self.stream.codec_context.format, layout=layout, rate=RATE)
        written: int | None = None  # samples from the clip's beginning
        for frame in self.source.decode(self.input):
            at = Fraction(0) if frame.time is None else Fraction(frame.time).limit_denominator(1_000_000)
            if at + Fraction(frame.samples, frame.sample_rate) <= self.begin:
                continue
            if at >= self.end:
                break
            begins = max(0, round((at - self.begin) * RATE))
            written = begins if written is None else written
            # what is missing in the source is silence, or all that follows would come too early
            missing = begins - written if begins - written > GAP else 0
            for part in itertools.chain(self._silence(missing), to.resample(frame)):
                part.pts, part.time_base = written, Fraction(1, RATE)
                written += part.samples
                yield from self.stream.encode(part)
        yield from self.stream.encode(None)

    def _silence(self, samples: int) -> Iterator[av.AudioFrame]:
        """So many samples as the encoder takes them, at most a second a frame."""
        context = self.stream.codec_context
        for done in range(0, samples, RATE):
            frame = av.AudioFrame(context.format.name, self.stream.layout.name, min(RATE, samples - done))
            frame.sample_rate = RATE
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            yield frame
