"""A clip edited from file to file, chunk by chunk: read, edited and written as it goes, in memory that does not grow with its length.

Frames are worked at the model's size and come back at their own. Where two chunks overlap, one fades into the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from videogen import generation, video
from videogen.editing import Edit, Job, Offer, Piece, Request, chunks_of, offered, recipe_of, span_of
from videogen.errors import InputError
from videogen.models import autoencoder
from videogen.plan import size_of, tell_unheard
from videogen.streams import Add, writing
from videogen.video import Source, open_source
from videogen.windows import Window, Windows

LEAST = 4  # latents on the shorter side of a very long or high picture


@dataclasses.dataclass(frozen=True)
class Targets:
    """What is written: the edit (several times, if it is to be kept twice), and beside it, if asked for, source and edit
    side by side, and the mask that was used.
    """

    edits: tuple[Path, ...]
    compare: Path | None = None
    mask: Path | None = None
    overwrite: bool = False

    def all(self) -> tuple[Path, ...]:
        """Every file."""
        return (*self.edits, *(path for path in (self.compare, self.mask) if path is not None))

    def check(self, source: Source) -> None:
        """Refuse what could not be written, and what would write over another of these files or the source, or among its pictures."""
        seen = {part.resolve() for part in source.parts}
        for path in self.all():
            video.check_target(path, overwrite=self.overwrite, frames=source.count, fps=source.fps)
            written = {file.resolve() for file in video.touched(path, source.count)}
            if written & seen:
                raise InputError(f"{path} is named twice, or is the source itself; choose another name")
            if source.path.is_dir() and path.suffix.lower() in video.STILLS and path.parent.samefile(source.path):
                raise InputError(f"{path} would become one of the pictures of {source.path}; choose another folder")
            seen |= written


class Frame(NamedTuple):
    """One frame of the source and of the edit, `h w 3` uint8, and the mask `1 1 H W` at the size worked at: 1 is all of it, 0 nothing."""

    source: np.ndarray
    edited: np.ndarray
    mask: Tensor


def edit_file(
    request: Request,
    targets: Targets,
    *,
    offer: Offer | None = None,
    tell: Callable[[str], None] = lambda line: None,
    progress: bool = True,
) -> None:
    """Edit the clip of a request, every file of `targets` complete or not at all.

    offer   the editing methods, where not the installed ones
    tell    takes the lines that say what is done

    Raises InputError for all that cannot be done, before anything is written.
    """
    request.check()
    offer = offered() if offer is None else offer
    source = open_source(request.clip)
    targets.check(source)
    start, stop = span_of(request, source)
    pipe = generation.load(request.base)
    tell("\n".join((pipe.line, *pipe.loras.lines)))
    size = work_size(source.shown, pipe.default_size, autoencoder.factor(pipe.parts.vae), request.size)
    job = offer.begin(pipe, request, stop - start, lambda count: spread(source, start, stop, size, count), progress)
    if targets.mask is not None and not job.masked:
        raise InputError(
            f"--show-mask: {job.request.method} uses no mask here; name what may change with --blend WORD (prompt_to_prompt, fatezero)"
        )
    assert job.request.base.guidance is not None
    tell_unheard(job.request.base.guidance, job.request.base.negative, rescale=0)
    chunks = chunks_of(request, job.motion, stop - start)
    tell(f"{job.line}; {_places(source, start, stop, size, chunks)}")
    write(source, targets, job, edited(source, (start, stop), size, chunks, _watched(job.edit, tell)))


def write(source: Source, targets: Targets, job: Job, frames: Iterator[Frame]) -> None:
    """Write what comes, frame by frame, into every target."""
    height, width = source.size
    with contextlib.ExitStack() as stack:

        def opened(path: Path, size: tuple[int, int] | None = None, sound: bool = True) -> Add:
            made = recipe if size is None and sound else None
            return stack.enter_context(writing(path, source, made, size=size, sound=sound, overwrite=targets.overwrite))

        recipe = recipe_of(job.request, source)
        edits = [opened(path) for path in targets.edits]
        compare = None if targets.compare is None else opened(targets.compare, (height, 2 * width))
        mask = None if targets.mask is None else opened(targets.mask, sound=False)
        for frame in frames:
            for add in edits:
                add(frame.edited)
            if compare is not None:
                compare(np.concatenate([frame.source, frame.edited], axis=1))
            if mask is not None:
                gray = F.interpolate(frame.mask, source.size)
                mask(to_pixels(gray.expand(-1, 3, -1, -1))[0])


def edited(
    source: Source, span: tuple[int, int], size: tuple[int, int], chunks: Windows, edit: Edit
) -> Iterator[Frame]:
    """Every frame of the source: those of the span edited in chunks, all others as they are."""
    start, stop = span
    frames = source.frames()
    nothing = torch.zeros(1, 1, *size)
    for pixels in islice(frames, start):
        yield Frame(pixels, pixels, nothing)
    yield from stitched(islice(frames, stop - start), chunks.cut(range(start, stop)), size, edit)
    for pixels in frames:
        yield Frame(pixels, pixels, nothing)


def stitched(frames: Iterator[np.ndarray], cut: Sequence[Window], size: tuple[int, int], edit: Edit) -> Iterator[Frame]:
    """Edit chunk by chunk; a frame comes out as soon as no later chunk holds it.

    A chunk fades in over all frames that it shares with those before it, evenly. The weights of the windows, which are for means, say nothing
    here: the last chunk is moved back to end with the clip, so that it may share far more than the overlap.
    """
    originals: dict[int, np.ndarray] = {}
    faded: dict[int, tuple[Tensor, Tensor]] = {}
    done = 0
    for k, window in enumerate(cut):
        for place in window.places:
            if place not in originals:
                originals[place] = _next(frames)
        clip = torch.cat([to_size(originals[place], size) for place in window.places])
        made, mask, _ = edit(clip, window.frames[0])
        if not bool(torch.isfinite(made).all()):
            raise InputError("the edit holds NaN, which would show as black; try --dtype float32 or a lower --guidance")
        mask = made.new_ones(len(made), 1, *size) if mask is None else mask
        shared = sum(place in faded for place in window.places)
        for i, place in enumerate(window.places):
            new, share = (made[i : i + 1], mask[i : i + 1]), min((i + 1) / (shared + 1), 1.0)
            picture, where = (torch.lerp(a, b, share) for a, b in zip(faded.get(place, new), new, strict=True))
            faded[place] = (picture, where)
        ready = cut[k + 1].places[0] if k + 1 < len(cut) else window.places[-1] + 1
        for place in range(done, ready):
            picture, where = faded.pop(place)
            original = originals.pop(place)
            back = resized(picture, (original.shape[0], original.shape[1]))
            yield Frame(original, to_pixels(back)[0], where)
        done = ready


def _next(frames: Iterator[np.ndarray]) -> np.ndarray:
    found = next(frames, None)
    if found is None:
        raise InputError("the source clip ended before its last frame; was it changed meanwhile?")
    return found


def work_size(
    source: tuple[int, int], model: tuple[int, int], factor: int, asked: tuple[int, int] | None = None
) -> tuple[int, int]:
    """Height and width to work at: those asked for (width, height), else the source's aspect on the model's area, in multiples of `factor`.

    Raises InputError where the VAE's factor does not divide what is asked for.
    """
    if asked is not None:
        return size_of(asked[1], asked[0], model, factor)
    scale = (model[0] * model[1] / (source[0] * source[1])) ** 0.5
    height, width = (max(LEAST, round(side * scale / factor)) * factor for side in source)
    return height, width


def spread(source: Source, start: int, stop: int, size: tuple[int, int], count: int) -> Tensor:
    """At most `count` frames of [start, stop), evenly spread: `f 3 H W` in [0, 1] of that size."""
    number = min(count, stop - start)
    wanted = {start + i * (stop - start) // number for i in range(number)}
    frames = enumerate(source.frames(0, stop))
    return torch.cat([to_size(pixels, size) for i, pixels in frames if i in wanted])


def to_size(pixels: np.ndarray, size: tuple[int, int]) -> Tensor:
    """A frame `h w 3` uint8 as `1 3 H W` in [0, 1]."""
    return resized(rearrange(torch.from_numpy(pixels.copy()), "h w c -> 1 c h w").float() / 255, size)


def resized(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames `f c h w` in [0, 1] at another size, bicubic, with antialiasing; the same values at the same size."""
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames
    return F.interpolate(frames, size, mode="bicubic", antialias=True).clamp(0, 1)


def to_pixels(frames: Tensor) -> np.ndarray:
    """Frames `f 3 h w` in [0, 1] as `f h w 3` uint8."""
    return rearrange((frames.float().clamp(0, 1) * 255).round().to(torch.uint8), "f c h w -> f h w c").numpy()


def _watched(edit: Edit, tell: Callable[[str], None]) -> Edit:
    """`edit`, telling before each chunk which frames it is, and after it what was measured, such as how well inversion gave them back."""

    def told(clip: Tensor, first: int) -> Piece:
        tell(f"frames {first} to {first + len(clip) - 1}")
        made = edit(clip, first)
        if made.measured:
            tell("  " + ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in made.measured.items()))
        return made

    return told


def _places(source: Source, start: int, stop: int, size: tuple[int, int], chunks: Windows) -> str:
    pieces = len(chunks.cut(range(stop - start)))
    cut = f" in {pieces} chunks of {chunks.length}" if pieces > 1 else ""
    what = "a picture" if source.count == 1 else f"frames {start} to {stop - 1} of {source.count}{cut}"
    return f"{what}, worked at {size[1]} x {size[0]}"
