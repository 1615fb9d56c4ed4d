"""Editors with known answers on a VAE that loses nothing, in the place of methods and models."""

from pathlib import Path
from typing import Any

from torch import Tensor

from editors.edited import Edited
from editors.evidence.methods import Method, Workshop
from editors.evidence.runs import Plan, Rows
from editors.evidence.trials import EDITS, FROM_TEXT, RECONSTRUCTION, Trial
from videogen.shapes import render

ALL = (*EDITS, RECONSTRUCTION)
FRAMES = 8


class Lossless:
    """What a run asks of a pipeline beside the methods' own needs."""

    default_size = (128, 128)
    motion = None
    guidance = 4.0

    def encode(self, clip: Tensor) -> Tensor:
        return clip

    def decode(self, latents: Tensor) -> Tensor:
        return latents


def source(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
    return Edited(clip)


def truth(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
    frames = render(trial.changed, shop.frames, 128).frames[0]
    return Edited(frames, frames.new_ones(len(frames), 1, 128, 128), {"told": 3.0})


def stills(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
    """The true edit's first frame, always: no motion."""
    return Edited(truth(shop, trial, clip).frames[:1].expand(shop.frames, -1, -1, -1))


def table(**runs: Any) -> dict[str, Method]:
    """Methods `source`, `truth` and `plain` (which returns the source), and further ones beside `plain`."""
    made = [
        Method("source", "the source", "", ALL, source, None),
        Method("truth", "the true edit", "", (*ALL, FROM_TEXT), truth, None),
        Method("plain", "plain", "", (*ALL, FROM_TEXT), source, None),
        *(Method(name, name, "", (*ALL, FROM_TEXT), run, "plain") for name, run in runs.items()),
    ]
    return {method.name: method for method in made}


def shop() -> Workshop:
    return Workshop(Lossless(), Lossless(), FRAMES)  # type: ignore[arg-type]


def rows(folder: Path, methods: dict[str, Method]) -> Rows:
    return Rows(folder, {"seed": 0, "frames": FRAMES}, methods)


def plan(methods: dict[str, Method], count: int = 4, **more: Any) -> Plan:
    names = tuple(name for name, method in methods.items() if method.against)
    return Plan(names, colour=count, others=count, tuned=count, table=methods, **more)
