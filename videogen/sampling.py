"""From noise to data: samplers as free functions over a `Denoise`, in the papers' symbols.

The state is always x_t = alpha x0 + sigma eps. A sampler is called as `sampler(denoise, x, times)`, with two callables:

    after(x, t, pred) -> x   called at the end of each step; x is at position t now, pred was made at the step's start
    noise(draw) -> like x    fresh noise for the stochastic ones; draw = (position of the step's start, repeat number)

Nothing here switches gradients off. `SAMPLERS` names them for the command line, with the grids of diffusers'
schedulers; each of them equals its scheduler step by step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from videogen.errors import InputError
from videogen.mixing import mix
from videogen.path import Path
from videogen.prediction import Denoise, Prediction
from videogen.times import (
    Grid,
    Times,
    ancestral_steps,
    consistency_steps,
    implicit_steps,
    multistep_steps,
    ratio_steps,
)

After = Callable[[Tensor, float, Prediction], Tensor]
Noise = Callable[[tuple[float, int]], Tensor]


def step(pred: Prediction, path: Path, s: float | Tensor, spread: float | Tensor = 0.0) -> Tensor:
    """To position s along the prediction, leaving room for fresh noise of standard deviation `spread`: like pred.x.

    x_s = alpha_s x0 + sqrt(sigma_s^2 - spread^2) eps. With no spread this is DDIM (Song et al. 2021, eq. 12) for models
    with eps or v, and Euler's method for a rectified flow; with s above pred's own time it is their inversion.
    """
    sigma = path.sigma(s)
    return mix(path.alpha(s), pred.x0, (sigma**2 - torch.as_tensor(spread) ** 2).clamp(min=0).sqrt(), pred.eps)


def posterior_spread(pred: Prediction, path: Path, s: float | Tensor) -> Tensor:
    """The standard deviation of x_s given x_t and x0 (Ho et al. 2020, eq. 7): float64."""
    sigma = path.sigma(s)
    back = torch.as_tensor(pred.alpha) * sigma / (path.alpha(s) * torch.as_tensor(pred.sigma))
    return sigma * (1 - back**2).clamp(min=0).sqrt()


def ddim(
    denoise: Denoise,
    x: Tensor,
    times: Times,
    *,
    eta: float = 0.0,
    noise: Noise | None = None,
    after: After | None = None,
) -> Tensor:
    """Song et al. 2021, "Denoising diffusion implicit models". x: b f c h w; eta 0 is deterministic, 1 is ancestral."""
    for t, s in times:
        pred = denoise(x, t)
        spread = eta * posterior_spread(pred, times.path, s)
        x = step(pred, times.path, s, spread)
        if eta:
            x = mix(1.0, x, spread, _fresh(noise, t))
        x = _finish(after, x, s, pred)
    return x


def ddpm(
    denoise: Denoise,
    x: Tensor,
    times: Times,
    *,
    variance_type: str = "fixed_small",
    noise: Noise | None = None,
    after: After | None = None,
) -> Tensor:
    """Ho et al. 2020, alg. 2. x: b f c h w. The variance is the posterior's (fixed_small) or beta (fixed_large)."""
    if variance_type not in ("fixed_small", "fixed_small_log", "fixed_large"):
        raise InputError(f"variance_type {variance_type!r}: known are fixed_small, fixed_small_log, fixed_large")
    for t, s in times:
        pred = denoise(x, t)
        spread = posterior_spread(pred, times.path, s)
        x = step(pred, times.path, s, spread)
        if variance_type == "fixed_large":
            spread = (1 - (times.path.alpha(t) / times.path.alpha(s)) ** 2).sqrt()
        if t > 0:
            x = mix(1.0, x, spread, _fresh(noise, t))
        x = _finish(after, x, s, pred)
    return x


def euler(denoise: Denoise, x: Tensor, times: Times, *, after: After | None = None) -> Tensor:
    """Euler's method on the probability flow in sigma/alpha (Karras et al. 2022, algorithm 1). x: b f c h w."""
    for t, s in times:
        pred = denoise(x, t)
        x = _finish(after, step(pred, times.path, s), s, pred)
    return x


def euler_ancestral(
    denoise: Denoise, x: Tensor, times: Times, *, noise: Noise | None = None, after: After | None = None
) -> Tensor:
    """Euler's method to below the next noise level, then fresh noise up to it: DDIM with eta 1 on Euler's grid."""
    return ddim(denoise, x, times, eta=1.0, noise=noise, after=after)


def heun(denoise: Denoise, x: Tensor, times: Times, *, after: After | None = None) -> Tensor:
    """The trapezoidal rule in sigma/alpha (Karras et al. 2022, algorithm 1): two calls a step. x: b f c h w."""
    for t, s in times:
        pred = denoise(x, t)
        there = step(pred, times.path, s)
        if s >= 0:
            # x / alpha moves by the mean slope; eps is the slope.
            keep = times.path.alpha(s) / times.path.alpha(t)
            slope = mix(0.5, pred.eps, 0.5, denoise(there, s).eps)
            there = mix(keep, x, times.path.sigma(s) - keep * times.path.sigma(t), slope)
        x = _finish(after, there, s, pred)
    return x


def dpmpp_2m(denoise: Denoise, x: Tensor, times: Times, *, after: After | None = None) -> Tensor:
    """DPM-Solver++(2M), Lu et al. 2022, algorithm 2. x: b f c h w.

    The first step is of first order, and so is the last where it ends in clean data or there are fewer than 15.
    """
    path, older = times.path, None
    for i, (t, s) in enumerate(times):
        pred = denoise(x, t)
        m0 = d = pred.x0
        h = _lambda(path, s) - _lambda(path, t)
        lowered = times.remaining(i) == 1 and (s < 0 or sum(times.left_out) + len(times) < 15)
        if older is not None and not lowered:
            h_0, m1 = older
            d = mix(1 + h / (2 * h_0), m0, -h / (2 * h_0), m1)
        older = (h, m0)
        x = mix(path.sigma(s) / path.sigma(t), x, -path.alpha(s) * torch.expm1(-h), d)
        x = _finish(after, x, s, pred)
    return x


def unipc(denoise: Denoise, x: Tensor, times: Times, *, after: After | None = None) -> Tensor:
    """UniPC of order 2 with B(h) = e^h - 1, on x0 (Zhao et al. 2023, algorithms 1 and 2, "bh2"). x: b f c h w.

    The prediction made at a step's end serves twice: it corrects that step, and it begins the next. The correction
    starts from where the step began, so what `after` changed reaches the next step through that prediction only.
    """
    path = times.path
    seen: list[tuple[float, Tensor]] = []  # (lambda, x0) of the steps so far
    start, order = x, 0  # x where the last step began, and that step's order
    for i, (t, s) in enumerate(times):
        pred = denoise(x, t)
        m0 = pred.x0
        if i:
            x = _unified(path, times.t[i - 1], t, start, seen, order, corrector=m0)
        start, order = x, min(2, times.remaining(i), i + 1)
        seen = [*seen[-1:], (float(_lambda(path, t)), m0)]
        x = _unified(path, t, s, start, seen, order)
        x = _finish(after, x, s, pred)
    return x


def _unified(
    path: Path,
    t: float | Tensor,
    s: float | Tensor,
    x: Tensor,
    seen: list[tuple[float, Tensor]],
    order: int,
    corrector: Tensor | None = None,
) -> Tensor:
    """From t to s by the x0 seen at t and before, and where there is one, by `corrector`, the x0 seen at s."""
    now, m0 = seen[-1]
    hh = now - _lambda(path, s)  # -h
    phi = torch.expm1(hh)
    x = mix(path.sigma(s) / path.sigma(t), x, -path.alpha(s) * phi, m0)
    weight = -path.alpha(s) * phi
    if order == 1:
        return x if corrector is None else mix(1.0, x, 0.5 * weight, corrector - m0)
    before, m1 = seen[-2]
    r = (before - now) / -hh
    if corrector is None:
        return mix(1.0, x, 0.5 * weight / r, m1 - m0)
    # The two weights solve [[1, 1], [r, 1]] rho = b; b are the moments of the exponential integral, over B(h).
    b1 = (phi / hh - 1) / phi
    b2 = 2 * ((phi / hh - 1) / hh - 0.5) / phi
    rho1 = (b1 - b2) / (1 - r)
    x = mix(1.0, x, weight * rho1 / r, m1 - m0)
    return mix(1.0, x, weight * (b1 - rho1), corrector - m0)


def lcm(
    denoise: Denoise,
    x: Tensor,
    times: Times,
    *,
    timestep_scaling: float = 10.0,
    noise: Noise | None = None,
    after: After | None = None,
) -> Tensor:
    """Multistep consistency sampling, Luo et al. 2023, "Latent consistency models", algorithm 3. x: b f c h w.

    `timestep_scaling` sharpens the boundary condition c_skip -> 1 at t = 0 (their appendix C; data of deviation 0.5).
    """
    data = 0.5
    for t, s in times:
        pred = denoise(x, t)
        now = float(times.path.label(t)) * timestep_scaling
        c_skip, c_out = data**2 / (now**2 + data**2), now / (now**2 + data**2) ** 0.5
        x = mix(c_out, pred.x0, c_skip, x)
        if s >= 0:
            x = mix(times.path.alpha(s), x, times.path.sigma(s), _fresh(noise, t))
        x = _finish(after, x, s, pred)
    return x


def _lambda(path: Path, t: float | Tensor) -> Tensor:
    """Half the logarithm of the signal-to-noise ratio, infinite for clean data."""
    return path.alpha(t).log() - path.sigma(t).log()


def _fresh(noise: Noise | None, t: float) -> Tensor:
    if noise is None:
        raise InputError("this sampler needs fresh noise at every step; pass noise=, or choose one that needs none")
    return noise((t, 0))


def _finish(after: After | None, x: Tensor, s: float, pred: Prediction) -> Tensor:
    return x if after is None else after(x, s, pred)


@dataclass(frozen=True)
class Sampler:
    """A sampler with its grid; `from_config` fits both to a model. Calls as the function does."""

    run: Callable[..., Tensor]
    lay: Callable[[Path, int, Grid], Times]
    scheduler: str  # diffusers' class that it equals
    grid: Grid
    reads: tuple[str, ...]  # the keys of that class's config which the grid follows
    stochastic: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)  # of `run`, named as in the config
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # keys that are known with these values only
    unread: tuple[str, ...] = ()  # keys of the model's process that the class does not have, and so samples without

    def from_config(self, config: Mapping[str, Any]) -> "Sampler":
        """The same with what a scheduler_config.json says. Raises InputError, with the key, for unknown values."""
        for key, values in self.fixed.items():
            if key in config and config[key] not in values:
                known = " or ".join(str(value) for value in values)
                raise InputError(f"{key} {config[key]!r} in the scheduler config: {self.run.__name__} knows {known}")
        grid = self.grid.from_config({key: config[key] for key in self.reads if key in config})
        options = {key: config.get(key, value) for key, value in self.options.items()}
        return replace(self, grid=grid, options=options)

    def path(self, config: Mapping[str, Any]) -> Path:
        """The process that a scheduler_config.json means to this sampler. Raises InputError as `Path.from_config`."""
        return Path.from_config({key: value for key, value in config.items() if key not in self.unread})

    def times(self, path: Path, n: int) -> Times:
        """n steps along `path`. Raises InputError where they do not fit on it."""
        return self.lay(path, n, self.grid)

    def __call__(
        self,
        denoise: Denoise,
        x: Tensor,
        times: Times,
        *,
        noise: Noise | None = None,
        after: After | None = None,
        **options: Any,
    ) -> Tensor:
        """Samples: x b f c h w, of standard deviation times.scale. `noise` is ignored by samplers that draw none."""
        drawn = {"noise": noise} if self.stochastic else {}
        return self.run(denoise, x, times, after=after, **drawn, **{**self.options, **options})


SPACED = ("timestep_spacing", "steps_offset")
UNCLIPPED = {"clip_sample": (False,), "thresholding": (False,)}
PLAIN_RATIOS = {"use_exponential_sigmas": (False, None), "use_beta_sigmas": (False, None)}
FULLY_SPACED = (*SPACED, "use_karras_sigmas", "final_sigmas_type")
SECOND_ORDER = {
    **PLAIN_RATIOS, "thresholding": (False,), "use_lu_lambdas": (False,), "use_flow_sigmas": (False,), "solver_order": (2,),
    "lower_order_final": (True,),
}  # fmt: skip

SAMPLERS = {
    "ddim": Sampler(
        ddim, implicit_steps, "DDIMScheduler", Grid(), (*SPACED, "set_alpha_to_one"), True, fixed=UNCLIPPED
    ),
    "ddpm": Sampler(
        ddpm, ancestral_steps, "DDPMScheduler", Grid(), SPACED, True, {"variance_type": "fixed_small"}, UNCLIPPED
    ),
    "euler": Sampler(
        euler,
        ratio_steps,
        "EulerDiscreteScheduler",
        Grid("linspace"),
        FULLY_SPACED,
        fixed={
            **PLAIN_RATIOS,
            "interpolation_type": ("linear",),
            "timestep_type": ("discrete",),
            "sigma_min": (None,),
            "sigma_max": (None,),
        },
    ),
    "euler_ancestral": Sampler(
        euler_ancestral, ratio_steps, "EulerAncestralDiscreteScheduler", Grid("linspace"), SPACED, True
    ),
    "heun": Sampler(
        heun,
        ratio_steps,
        "HeunDiscreteScheduler",
        Grid("linspace"),
        (*SPACED, "use_karras_sigmas"),
        fixed={**PLAIN_RATIOS, "clip_sample": (False,)},
        unread=("rescale_betas_zero_snr",),
    ),
    "dpmpp_2m": Sampler(
        dpmpp_2m,
        multistep_steps,
        "DPMSolverMultistepScheduler",
        Grid("linspace", whole_labels=True),
        FULLY_SPACED,
        fixed={
            **SECOND_ORDER,
            "algorithm_type": ("dpmsolver++", "deis"),
            "solver_type": ("midpoint", "bh1", "bh2", "logrho"),
        },
    ),
    "unipc": Sampler(
        unipc,
        multistep_steps,
        "UniPCMultistepScheduler",
        Grid("linspace", whole_labels=True),
        FULLY_SPACED,
        fixed={
            **SECOND_ORDER,
            "predict_x0": (True,),
            "solver_type": ("bh2", "midpoint", "heun", "logrho"),
            "disable_corrector": ([],),
        },
    ),
    "lcm": Sampler(
        lcm,
        consistency_steps,
        "LCMScheduler",
        Grid(),
        ("original_inference_steps",),
        True,
        {"timestep_scaling": 10.0},
        UNCLIPPED,
    ),
}
