"""Noise by address: the noise of a frame is a function of (seed, item, frame, draw) and of nothing else.

So a frame keeps its noise when the clip grows, the window moves, the batch changes or a run resumes. `draw` is None for the
first x, and (position, repeat) for a sampler's fresh noise. All noise by address is made on the processor in float32, so that it is
the same on every device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import pack

import torch
from einops import rearrange
from torch import Tensor

from videogen.errors import InputError

Draw = tuple[float, int] | None
Generators = torch.Generator | Sequence[torch.Generator]

ORDER = -2  # the address, that of no frame, of the permutations of `shuffled`


@dataclass(frozen=True)
class FrameNoise:
    """Unit noise by address. With several seeds, item i has the i-th and each is as if it were alone."""

    seed: int | tuple[int, ...]

    def __post_init__(self) -> None:
        seeds = self.seed if isinstance(self.seed, tuple) else (self.seed,)
        if not seeds or not all(isinstance(seed, int) and -(2**63) <= seed < 2**63 for seed in seeds):
            raise InputError(f"seed {self.seed!r}: a whole number of 64 bits is needed, or one an item")

    def __call__(
        self, items: int | Sequence[int], frames: int | Sequence[int], shape: Sequence[int], draw: Draw = None
    ) -> Tensor:
        """Noise of `items` clips (a count, or ids) at `frames` (a count, or ids), each of shape (c, h, w): b f c h w."""
        if isinstance(self.seed, tuple) and isinstance(items, int) and items != len(self.seed):
            raise InputError(f"{len(self.seed)} seeds for {items} clips; give one seed, or one a clip")
        rows = [torch.stack([self.frame(i, f, shape, draw) for f in _ids(frames)]) for i in _ids(items)]
        return torch.stack(rows)

    def frame(self, item: int, frame: int, shape: Sequence[int], draw: Draw = None) -> Tensor:
        """The noise of one frame: c h w."""
        return torch.randn(tuple(shape), generator=self.generator(item, frame, draw))

    def generator(self, item: int, frame: int, draw: Draw = None) -> torch.Generator:
        """A generator seeded with a hash of the address: neighbouring addresses have unrelated noise."""
        seed = self.seed
        if isinstance(seed, tuple):
            if item >= len(seed):
                raise InputError(f"{len(seed)} seeds for item {item + 1}; give one seed, or one an item")
            seed, item = seed[item], 0
        t, repeat = (-1.0, -1) if draw is None else draw
        address = pack("<qqqdq", seed, item, frame, t, repeat)
        return torch.Generator().manual_seed(int.from_bytes(blake2b(address, digest_size=8).digest(), "little"))


def shuffled(
    noise: FrameNoise,
    items: int | Sequence[int],
    frames: int | Sequence[int],
    shape: Sequence[int],
    *,
    window: int = 16,
    stride: int = 4,
) -> Tensor:
    """FreeNoise (Qiu et al. 2023, section 3.2): frames past the window reuse the noise of earlier ones: b f c h w.

    Frames [i, i + stride) have a permutation of the noise of [i - window, i - window + stride). The permutation is a function
    of (seed, item, i), so a frame keeps its noise in a longer clip too.
    """
    if not 1 <= stride <= window:
        raise InputError(f"window {window}, stride {stride}: a stride is at least 1 and at most the window")

    def source(item: int, frame: int) -> int:
        while frame >= window:
            block, place = divmod(frame - window, stride)
            begin = block * stride
            order = torch.randperm(stride, generator=noise.generator(item, ORDER, (float(begin), 0)))
            frame = begin + int(order[place])
        return frame

    rows = [torch.stack([noise.frame(i, source(i, f), shape) for f in _ids(frames)]) for i in _ids(items)]
    return torch.stack(rows)


def from_generator(
    generator: Generators, items: int, frames: int, shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> Tensor:
    """What diffusers' video pipelines draw from a generator, or from one an item: b f c h w on the processor.

    They draw b c f h w, in the pipeline's dtype and on the generator's device; either changes the numbers.
    """
    c, h, w = shape
    if isinstance(generator, torch.Generator):
        drawn = torch.randn((items, c, frames, h, w), generator=generator, device=generator.device, dtype=dtype)
    else:
        if len(generator) != items:
            raise InputError(f"{len(generator)} generators for {items} clips; give one, or one a clip")
        each = [torch.randn((1, c, frames, h, w), generator=g, device=g.device, dtype=dtype) for g in generator]
        drawn = torch.cat(each)
    return rearrange(drawn.cpu(), "b c f h w -> b f c h w").contiguous()


def _ids(count: int | Sequence[int]) -> Sequence[int]:
    return range(count) if isinstance(count, int) else count


@dataclass(frozen=True, eq=False)
class Drawn:
    """Noise from a generator, in the order of the calls: diffusers' draw. Calls as `FrameNoise` does."""

    generator: Generators

    def __call__(self, items: int, frames: Sequence[int], shape: Sequence[int], draw: Draw = None) -> Tensor:
        """Fresh noise b f c h w; the address is of no account."""
        return from_generator(self.generator, items, len(frames), shape)


def source_of(seed: int | Sequence[int] | None, generator: Generators | None) -> FrameNoise | Drawn:
    """The noise of a call: a generator's where one is given, else by address; without a seed torch draws one."""
    if generator is not None:
        return Drawn(generator)
    if isinstance(seed, Sequence):
        return FrameNoise(tuple(seed))
    return FrameNoise(int(torch.randint(2**63 - 1, ())) if seed is None else seed)
