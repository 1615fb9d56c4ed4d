"""Little clips whose frames say their own number: frame i has the mean brightness 20 + 4 i, and some grain."""

import io
import struct
import tarfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

SIZE = (64, 48)
COUNT = 48


def flat(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Frame `number`, `h w 3` uint8."""
    grain = np.random.default_rng(number).integers(-8, 9, (size[1], size[0], 1))
    return np.repeat(20 + 4 * number + grain, 3, axis=2).astype(np.uint8)


def numbers(frames: np.ndarray) -> list[int]:
    """Which frames these are, `f h w 3` uint8."""
    return [round((float(frame.mean()) - 20) / 4) for frame in frames]


def film(
    path: Path,
    count: int = COUNT,
    *,
    size: tuple[int, int] = SIZE,
    gop: int = 12,
    rate: int = 12,
    times: Sequence[int] | None = None,
    codec: str = "libx264",
    sound: bool = False,
    further: str = "",
    options: Mapping[str, str] = {},
) -> Path:
    """A file with B-frames and a key frame every `gop` frames; frame i is shown at `times[i] / rate` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=dict(options)) as output:
        wanted = {"g": str(gop), "b": "4000000"}
        if codec == "libx264":
            wanted = {
                "g": str(gop),
                "crf": "4",
                "threads": "1",
                "x264-params": f"bframes=2:b-adapt=0:scenecut=0:{further}",
            }
        stream = output.add_stream(codec, rate=rate, options=wanted)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        voice = output.add_stream("aac", rate=8000) if sound else None
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(flat(i, size), format="rgb24")
            frame.pts, frame.time_base = (i if times is None else times[i]), Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if voice is not None:
            _hum(output, voice)
    return path


def trimmed(path: Path, source: Path, first: int) -> Path:
    """A copy from frame `first` on, without encoding anew: an edit list cuts away what lies between the key frame before and it."""
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        assert stream.average_rate is not None
        assert stream.time_base is not None
        start = int(first / stream.average_rate / stream.time_base)
        given.seek(start, stream=stream)
        for packet in given.demux(stream):
            if packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, copy
                output.mux(packet)
    return path


def sound_only(path: Path) -> Path:
    """A file without pictures."""
    with av.open(str(path), "w") as output:
        _hum(output, output.add_stream("aac", rate=8000))
    return path


def _hum(output: av.container.OutputContainer, stream: av.AudioStream) -> None:
    for start in range(0, 8000, 1000):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def turned(path: Path) -> Path:
    """The same file with a flag that it is to be shown a quarter turn clockwise."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of times, ids and volume
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def picture(path: Path, number: int = 5, size: tuple[int, int] = SIZE) -> Path:
    """A still."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(flat(number, size)).save(path)
    return path


def shard(path: Path, members: Mapping[str, bytes]) -> Path:
    """A tar file of these members, in their order."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path
