"""The figures on the way: rendered scenes meet their own captions."""

import torch

from videogen.shapes import render, sample
from videogen.shapes.captions import plain
from videogen.training.validation import figures


def test_rendered_scenes_meet_their_captions() -> None:
    scenes = sample(3, generator=torch.Generator().manual_seed(0), objects=1, plain=True, styles=("flat",))
    captions, frames = plain(scenes), render(scenes).frames
    found = figures(frames, tuple(captions))
    assert found["right_motion"] == found["right_colour"] == found["right_shape"] == 1
    other = figures(frames, (captions[0], "fog", captions[2]))
    assert other == dict.fromkeys(other, 1.0)
    stills = figures(frames[:, :1], tuple(captions))
    assert stills["right_colour"] == 1
    assert "right_motion" not in stills
    assert figures(frames, ("fog",) * 3) == {}
