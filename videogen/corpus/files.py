"""A corpus of clips in files, as WebVid's lie: `results.csv`, `videos/PAGE/ID.mp4`, and `broken.txt`, which names what is broken on purpose."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from einops import rearrange

from videogen.clip import Audio
from videogen.corpus.films import Corpus, Film, films
from videogen.data.facts import ordered
from videogen.errors import InputError, reason
from videogen.files import address, replacing
from videogen.movie import write_movie
from videogen.shapes.render import render

TABLE, VIDEOS, BROKEN, SETTINGS = "results.csv", "videos", "broken.txt", "corpus.json"
COLUMNS = ("videoid", "name", "page_dir", "duration", "contentUrl")
RATE, PITCH = 48000, 220.0  # of the sound, a tone that rises by an octave


def make(
    folder: Path,
    corpus: Corpus,
    count: int,
    broken: int = 0,
    *,
    workers: int = 2,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write a corpus of `count` whole and `broken` broken clips into `folder`, and return how many files were new.

    Files that are there stay, so that a corpus that was interrupted is finished, and one that is too small grows; the table comes last.
    tell  takes how many clips are done, and of how many

    Raises InputError where the folder holds something else, or a corpus of other settings, and where writing fails.
    """
    _begin(folder, corpus)
    planned = films(corpus, count, broken)
    new = 0
    try:
        for page in sorted({film.page_dir for film in planned}):
            (folder / VIDEOS / page).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as holder:
            tone = _tone(Path(holder) / "tone.mp4", math.ceil(corpus.seconds) + 1)

            def made(film: Film) -> bool:
                path = folder / VIDEOS / film.path
                return not path.exists() and _write(path, film, corpus.size, tone)

            for done, is_new in enumerate(ordered(made, planned, workers), 1):
                new += is_new
                tell(done, len(planned))
        _write_lists(folder, planned)
    except (OSError, av.FFmpegError) as problem:
        raise InputError(f"the corpus cannot be written into {folder}: {reason(problem)}") from problem
    return new


def corpus_of(folder: Path) -> Corpus:
    """What the corpus in a folder is like. Raises InputError where there is none."""
    note = folder / SETTINGS
    if not note.is_file():
        raise InputError(f"{folder} holds no corpus of `videogen shapes corpus`: there is no {SETTINGS} in it")
    try:
        values: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        values["paint"] = tuple((name, red, green, blue) for name, red, green, blue in values["paint"])
        values |= {name: tuple(values[name]) for name in ("styles", "untold")}
        return Corpus(**values)
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        if isinstance(problem, InputError):
            raise
        raise InputError(f"{note} is damaged; make the corpus again") from None


def _begin(folder: Path, corpus: Corpus) -> None:
    """See that the folder is ours, and write down what the corpus is like."""
    values = json.loads(json.dumps(dataclasses.asdict(corpus)))
    note = folder / SETTINGS
    if note.is_file():
        try:
            before: Any = json.loads(note.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{note} is damaged; remove the folder, or choose another") from None
        other = [key for key in values if not isinstance(before, dict) or before.get(key) != values[key]]
        if other:
            raise InputError(f"{folder} holds a corpus with another {' and '.join(other)}; choose another folder")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there and holds no corpus; choose a folder that is new or empty")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(note) as beside:
            beside.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except OSError as problem:
        raise InputError(f"{folder} cannot be written: {problem.strerror}") from problem


def _write(path: Path, film: Film, size: int, tone: Path) -> bool:
    """One file, whole or broken as its film says."""
    with replacing(path) as beside:
        if film.flaw == "zero bytes":
            beside.touch()
        elif film.flaw == "sound without pictures":
            shutil.copyfile(tone, beside)
        else:
            pictures = render(film.scene, film.frames, size).frames[0]
            pixels = rearrange((pictures * 255).round(), "f c h w -> f h w c").numpy().astype(np.uint8)
            begin = Fraction(int(film.videoid) % 10, 10)
            write_movie(beside, pixels, film.rate, "", Audio(tone, begin) if film.sound else None)
        if film.flaw == "cut in the middle":
            content = beside.read_bytes()
            beside.write_bytes(content[: len(content) // 2])
    return True


def _tone(path: Path, seconds: int) -> Path:
    """A file of sound alone."""
    at = np.arange(seconds * RATE) / RATE
    wave = 0.2 * np.sin(2 * np.pi * PITCH * (at + at**2 / (2 * seconds)))
    with av.open(address(path), "w", format="mp4") as output:
        stream: Any = output.add_stream("aac", rate=RATE, layout="mono")
        for start in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024].astype(np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def _write_lists(folder: Path, planned: Sequence[Film]) -> None:
    with replacing(folder / BROKEN) as beside:
        lines = [f"{VIDEOS}/{film.path}: {film.flaw}" for film in planned if film.flaw is not None]
        beside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    with replacing(folder / TABLE) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        table: Any = csv.writer(file)
        table.writerow(COLUMNS)
        for film in planned:
            minutes, seconds = divmod(round(film.frames / film.rate), 60)
            duration = f"PT{minutes // 60:02d}H{minutes % 60:02d}M{seconds:02d}S"
            table.writerow((film.videoid, film.caption, film.page_dir, duration, f"{VIDEOS}/{film.path}"))
