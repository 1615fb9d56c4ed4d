"""Models in float64, where an identity holds to rounding that no step can blow up."""

import copy
import dataclasses

from videogen.pipeline import Pipeline


def in_double(pipe: Pipeline) -> Pipeline:
    """A pipeline beside the given one whose UNet is in float64."""
    double, unet = copy.copy(pipe), copy.deepcopy(pipe.parts.unet).double()
    double.parts = dataclasses.replace(pipe.parts, unet=unet)
    double.denoiser = pipe.denoiser.replace(net=unet)
    return double
