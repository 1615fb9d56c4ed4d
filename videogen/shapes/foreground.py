"""Where the objects of a clip are, as a mask: for what treats objects and background differently."""

from __future__ import annotations

from torch import Tensor

from videogen.shapes.regions import backgrounds, difference, different, regions


def foreground(frames: Tensor) -> Tensor:
    """Where frames `f 3 H W` in [0, 1] of one clip show objects, read off their pixels: `f 1 H W`, 1 on objects and 0 on the background.

    The background is what most of the clip is: more than half of its pixels must show it.
    """
    clips = frames[None].float() * 255
    mask, _ = different(difference(clips, backgrounds(clips)))
    return (regions(mask[0]).labels > 0)[:, None].to(frames.dtype)
