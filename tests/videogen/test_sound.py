"""Source sound stays: copied to the bit where the container takes it, encoded anew where not, and in step with the frames."""

import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from videogen import video
from videogen.clip import Audio, Clip
from videogen.errors import InputError

RATE = 48000


def film(
    path: Path,
    picture_from: Fraction = Fraction(0),
    sound_from: Fraction = Fraction(0),
    lost: tuple[float, float] = (0, 0),
) -> Path:
    """Two seconds of video at 10 frames per second, and of sound: silence, then a tone from the file's second 1 on.

    lost   seconds between which the packets of the sound are not there
    """
    with av.open(str(path), "w") as output:
        stream, sound = output.add_stream("libx264", rate=10), output.add_stream("aac", rate=RATE, layout="mono")
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        first = int(sound_from * RATE)
        at = np.arange(first, first + 2 * RATE)
        tone = np.sin(at / RATE * 2 * np.pi * 440) * (at >= RATE) * 0.5
        for i in range(20):
            picture = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 12 * i, np.uint8)).reformat(format="yuv420p")
            picture.pts = i + int(10 * picture_from)
            output.mux(stream.encode(picture))
        for start in range(0, 2 * RATE, 960):
            part = av.AudioFrame.from_ndarray(
                tone[None, start : start + 960].astype(np.float32), format="fltp", layout="mono"
            )
            part.sample_rate, part.pts = RATE, first + start
            output.mux([p for p in sound.encode(part) if not lost[0] < p.pts * p.time_base < lost[1]])
        output.mux(stream.encode(None))
        output.mux(sound.encode(None))
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both from the beginning."""
    return film(tmp_path_factory.mktemp("sound") / "source.mp4")


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(container.streams.audio[0]) if p.size]


def waveform(path: Path) -> tuple[np.ndarray, int, str]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        parts = [frame.to_ndarray() for frame in container.decode(stream)]
        wave = np.concatenate([p.mean(0) if p.shape[0] > 1 else p[0] for p in parts], axis=-1)
        return wave, stream.codec_context.sample_rate, stream.codec_context.name


def onset(path: Path) -> float:
    wave, rate, _ = waveform(path)
    return float(np.argmax(np.abs(wave) > 0.1)) / rate


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_sound_is_copied_to_the_bit(source: Path, tmp_path: Path, suffix: str) -> None:
    clip = video.read(source)
    assert clip.audio == Audio(source, Fraction(0))
    video.write(tmp_path / f"edited{suffix}", clip)
    original, copied = packets(source), packets(tmp_path / f"edited{suffix}")
    assert copied == original[: len(copied)]
    assert len(original) - len(copied) <= 2  # what would sound after the last frame
    assert onset(tmp_path / f"edited{suffix}") == pytest.approx(onset(source), abs=0.03)


def test_a_source_with_a_colon_in_its_name(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(source, "12:30.mp4")
    video.write("again.mp4", video.read("12:30.mp4"))
    assert packets(tmp_path / "again.mp4") == packets(source)


def test_webm_gets_opus(source: Path, tmp_path: Path) -> None:
    video.write(tmp_path / "edited.webm", video.read(source))
    wave, _, codec = waveform(tmp_path / "edited.webm")
    assert codec == "opus"
    assert np.abs(wave).max() > 0.2
    assert onset(tmp_path / "edited.webm") == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_a_part_keeps_its_own_sound(source: Path, tmp_path: Path, suffix: str) -> None:
    clip = video.read(source).cut(5, 15)
    assert clip.audio == Audio(source, Fraction(1, 2))
    assert clip.cut(2, 10).audio == Audio(source, Fraction(7, 10))
    video.write(tmp_path / f"part{suffix}", clip)
    assert onset(tmp_path / f"part{suffix}") == pytest.approx(0.5, abs=0.05)
    with av.open(str(tmp_path / f"part{suffix}")) as container:
        assert container.duration / av.time_base == pytest.approx(1.0, abs=0.06)


def heard(path: Path) -> float:
    """The second at which the tone is heard, by the times in the file; its picture begins at 0."""
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).time == 0
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            loud = np.abs(frame.to_ndarray().mean(0)) > 0.1
            if loud.any():
                return float(frame.time) + int(loud.argmax()) / frame.sample_rate
    raise AssertionError("no tone")


@pytest.mark.parametrize("kind", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_a_picture_that_begins_late_in_its_file_keeps_its_own_sound(tmp_path: Path, kind: str, suffix: str) -> None:
    """Half a second into the file: the tone at 1 s is heard half a second after the first frame."""
    clip = video.read(film(tmp_path / f"late{kind}", picture_from=Fraction(1, 2)))
    video.write(tmp_path / f"out{suffix}", clip)
    assert heard(tmp_path / f"out{suffix}") == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_sound_that_begins_late_stays_late(tmp_path: Path, suffix: str) -> None:
    video.write(tmp_path / f"out{suffix}", video.read(film(tmp_path / "late.mp4", sound_from=Fraction(1, 2))))
    assert heard(tmp_path / f"out{suffix}") == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_sound_after_a_gap_stays_where_it_was(tmp_path: Path, suffix: str) -> None:
    """As in a broken recording; copied or encoded anew, the tone is heard at 1 s."""
    video.write(tmp_path / f"out{suffix}", video.read(film(tmp_path / "gap.mkv", lost=(0.3, 0.9))))
    assert heard(tmp_path / f"out{suffix}") == pytest.approx(1.0, abs=0.05)


def test_formats_without_sound_and_a_source_that_has_gone(source: Path, tmp_path: Path) -> None:
    clip = video.read(source)
    video.write(tmp_path / "silent.gif", clip)
    assert video.read(tmp_path / "silent.gif").audio is None
    lost = Clip(torch.zeros(2, 3, 16, 16), Fraction(10), Audio(tmp_path / "gone.mp4"))
    with pytest.raises(InputError, match=r"gone\.mp4 cannot be read"):
        video.write(tmp_path / "out.mp4", lost)
    assert not (tmp_path / "out.mp4").exists()
