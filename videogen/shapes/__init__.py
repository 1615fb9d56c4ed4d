"""The shapes world: scenes, captions, pictures with ground truth, and a program that reads pictures back.

`sample` draws scenes, `render` pictures of them; `measure` says what pixels show and `foreground` where,
`parse` what a caption asks for.
"""

from videogen.shapes.agreement import agrees
from videogen.shapes.foreground import foreground
from videogen.shapes.measure import Measurement, measure
from videogen.shapes.render import render
from videogen.shapes.sampling import sample
from videogen.shapes.truth import Rendered
from videogen.shapes.wanted import Wanted, parse
from videogen.shapes.world import Scenes

__all__ = [
    "Measurement",
    "Rendered",
    "Scenes",
    "Wanted",
    "agrees",
    "foreground",
    "measure",
    "parse",
    "render",
    "sample",
]
