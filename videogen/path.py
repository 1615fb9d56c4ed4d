"""From data to noise: x_t = alpha(t) x0 + sigma(t) eps.

A position t is counted in training steps, 0 ... T-1, and may lie between them; -1 is clean data (alpha 1, sigma 0).
Two families:

    VariancePreserving  alpha^2 + sigma^2 = 1, from a table of betas (Ho et al. 2020; cosine: Nichol and Dhariwal 2021,
                        eq. 17; zero terminal noise: Lin et al. 2023, algorithm 1)
    RectifiedFlow       alpha = 1 - sigma, with the shift of Esser et al. 2024, eq. 23 (Stable Diffusion 3)

All values are float64 on the processor. Another family is another subclass with its own `alpha`, `sigma` and `label`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from videogen.errors import InputError
from videogen.mixing import mix

READ_FROM_CONFIG = frozenset(
    {
        "_class_name", "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr", "shift",
        "prediction_type",
    }
)  # fmt: skip
"""Keys of a scheduler_config.json that say which process a net was trained on, and what it predicts."""

# diffusers' classes that have a table of betas and nothing beside it.
OF_BETAS = frozenset(
    f"{name}Scheduler"
    for name in (
        "DDIM", "DDIMInverse", "DDIMParallel", "DDPM", "DDPMParallel", "DEISMultistep", "DPMSolverMultistep", "DPMSolverMultistepInverse",
        "DPMSolverSDE", "DPMSolverSinglestep", "EulerAncestralDiscrete", "EulerDiscrete", "HeunDiscrete", "KDPM2AncestralDiscrete",
        "KDPM2Discrete", "LCM", "LMSDiscrete", "PNDM", "SASolver", "TCD", "UniPCMultistep",
    )
)  # fmt: skip

# Where a config leaves betas out, diffusers' classes fill in their own; nearly all agree.
DEFAULT_BETAS = (0.0001, 0.02, "linear")
DEFAULT_BETAS_OF_CLASS = {
    "HeunDiscreteScheduler": (0.00085, 0.012, "linear"),
    "LCMScheduler": (0.00085, 0.012, "scaled_linear"),
}


@dataclass(frozen=True, eq=False)
class Path(ABC):
    """The process a net was trained on; use a subclass, or `Path.from_config`."""

    @abstractmethod
    def alpha(self, t: float | Tensor) -> Tensor:
        """How much of the clean clip is left at t (any shape): float64, the shape of t."""

    @abstractmethod
    def sigma(self, t: float | Tensor) -> Tensor:
        """The standard deviation of the noise at t (any shape): float64, the shape of t."""

    @abstractmethod
    def label(self, t: float | Tensor) -> Tensor:
        """What the net is told at t: float64, the shape of t."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """T, the number of training steps."""

    def renoise(self, x: Tensor, s: float | Tensor, t: float | Tensor, noise: Tensor) -> Tensor:
        """From x at position s to the noisier position t; s = -1 is the forward process itself.

        x and noise: b f c h w; s and t: numbers or b. The result has the law of x_t given x_s:
        mean (alpha_t / alpha_s) x, variance sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2.
        Raises InputError where t is less noisy than s.
        """
        keep = self.alpha(t) / self.alpha(s)
        variance = self.sigma(t) ** 2 - (keep * self.sigma(s)) ** 2
        if bool((variance < -1e-12).any()) or not bool(torch.isfinite(keep).all()):
            raise InputError(f"renoise goes from less to more noise, not from position {s} to {t}")
        return mix(keep, x, variance.clamp(min=0).sqrt(), noise)

    def _checked(self, t: float | Tensor) -> Tensor:
        """t as float64 on the processor. Raises InputError, with the first, where a position is off the path."""
        t = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        off = t[~((t >= -1) & (t <= self.steps - 1))]
        if len(off):
            raise InputError(f"position {off[0]:g} is off the path, which runs from -1 (clean) to {self.steps - 1}")
        return t

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> "Path":
        """The process of a diffusers `scheduler_config.json`. Raises InputError, with the key, for unknown values and classes."""
        name = str(config.get("_class_name", ""))
        if name.startswith("FlowMatch"):
            return RectifiedFlow.from_config(config)
        if name and name not in OF_BETAS:
            raise InputError(
                f"the scheduler is a {name}, whose process is not known here; known are those of a table of betas (as DDIMScheduler) and FlowMatch"
            )
        return VariancePreserving.from_config(config)


@dataclass(frozen=True, eq=False)
class VariancePreserving(Path):
    """A table of cumulative alphas; between training steps the noise-to-signal ratio sigma/alpha is interpolated.

    `interpolation` and `whole_labels` belong to the sampler rather than to the training: some samplers stop between
    training steps and tell the net a whole number all the same. A sampler's `Times` hold the path with both set.
    """

    alphas_cumprod: Tensor  # T, float64: alpha(t)^2
    interpolation: Literal["linear", "log"] = "linear"  # of sigma/alpha
    whole_labels: bool = False  # the net is told the nearest training step

    @property
    def steps(self) -> int:
        """T, the number of training steps."""
        return len(self.alphas_cumprod)

    def alpha(self, t: float | Tensor) -> Tensor:
        """sqrt of the cumulative product of 1 - beta: float64, the shape of t."""
        return (1 + self.ratio(t) ** 2).rsqrt()

    def sigma(self, t: float | Tensor) -> Tensor:
        """sqrt(1 - alpha^2): float64, the shape of t."""
        return (1 - self.alpha(t) ** 2).clamp(min=0).sqrt()

    def label(self, t: float | Tensor) -> Tensor:
        """t, or the nearest training step: float64, the shape of t."""
        t = self._checked(t)
        return t.round() if self.whole_labels else t

    def ratio(self, t: float | Tensor) -> Tensor:
        """sigma / alpha at t, which k-diffusion calls sigma; infinite at zero terminal noise."""
        t = self._checked(t)
        known = torch.cat([torch.zeros(1, dtype=torch.float64), self.ratios()])  # position -1 first
        below = t.floor().long() + 1
        low, high = known[below], known[(below + 1).clamp(max=self.steps)]
        w = t - t.floor()
        between = torch.lerp(low, high, w)
        if self.interpolation == "log":
            between = torch.where(low > 0, torch.exp(torch.lerp(low.log(), high.log(), w)), between)
        # On the way to zero terminal noise it is alpha/sigma that falls linearly.
        between = torch.where(high.isinf(), low / (1 - w), between)
        return torch.where(w == 0, low, between)

    def ratios(self) -> Tensor:
        """sigma / alpha at the training steps: T."""
        return ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt()

    def position(self, ratio: Tensor) -> Tensor:
        """Where sigma / alpha has these values, within 0 ... T-1: the inverse of `ratio` under interpolation "log"."""
        known = self.ratios().log()
        wanted = ratio.to(torch.float64).log()
        below = (torch.searchsorted(known, wanted, right=True) - 1).clamp(0, self.steps - 2)
        return below + ((wanted - known[below]) / (known[below + 1] - known[below])).clamp(0, 1)

    def finite(self) -> "VariancePreserving":
        """The same with a last alpha of 2^-12 where it was zero (diffusers' choice), for samplers that divide by it."""
        table = self.alphas_cumprod.clone()
        table[table == 0] = 2.0**-24
        return replace(self, alphas_cumprod=table)

    @staticmethod
    def from_betas(betas: Tensor, *, zero_terminal: bool = False) -> "VariancePreserving":
        """From the variances beta of the forward steps: T. With `zero_terminal` the last step is made pure noise."""
        betas = torch.as_tensor(betas, dtype=torch.float32, device="cpu")
        if betas.ndim != 1 or len(betas) < 2 or not (betas.min() > 0 and betas.max() <= 1):
            raise InputError("betas must be a list of at least two numbers above 0 and at most 1")
        # In float32, as nets are trained: near clean data sigma^2 is the difference of nearly equal numbers, and a finer
        # table would differ from theirs by 1e-5.
        alphas_cumprod = torch.cumprod(1 - betas, 0)
        if zero_terminal:
            root = alphas_cumprod.sqrt()
            root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
            alphas_cumprod = root**2
        return VariancePreserving(alphas_cumprod.double())

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> "VariancePreserving":
        """From num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, rescale_betas_zero_snr."""
        zero_terminal = bool(config.get("rescale_betas_zero_snr", False))
        if config.get("trained_betas") is not None:
            return VariancePreserving.from_betas(torch.tensor(config["trained_betas"]), zero_terminal=zero_terminal)
        name = str(config.get("_class_name", ""))
        start, end, schedule = DEFAULT_BETAS_OF_CLASS.get(name, DEFAULT_BETAS)
        betas = make_betas(
            config.get("beta_schedule", schedule),
            config.get("num_train_timesteps", 1000),
            config.get("beta_start", start),
            config.get("beta_end", end),
        )
        return VariancePreserving.from_betas(betas, zero_terminal=zero_terminal)


@dataclass(frozen=True, eq=False)
class RectifiedFlow(Path):
    """The straight path from data to noise. With u = (t + 1) / T, sigma = shift u / (1 + (shift - 1) u)."""

    train_steps: int = 1000
    shift: float = 1.0  # above 1: more of the steps go to high noise, as large pictures need

    @property
    def steps(self) -> int:
        """T, the number of training steps."""
        return self.train_steps

    def alpha(self, t: float | Tensor) -> Tensor:
        """1 - sigma: float64, the shape of t."""
        return 1 - self.sigma(t)

    def sigma(self, t: float | Tensor) -> Tensor:
        """The shifted share of noise: float64, the shape of t."""
        u = (self._checked(t) + 1) / self.train_steps
        return self.shift * u / (1 + (self.shift - 1) * u)

    def label(self, t: float | Tensor) -> Tensor:
        """T sigma: the net is told the noise, not the place in the schedule."""
        return self.train_steps * self.sigma(t)

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> "RectifiedFlow":
        """From num_train_timesteps and shift of a FlowMatch scheduler."""
        if config.get("use_dynamic_shifting"):
            raise InputError("use_dynamic_shifting in the scheduler config is not supported; give a fixed shift")
        return RectifiedFlow(int(config.get("num_train_timesteps", 1000)), float(config.get("shift", 1.0)))


def make_betas(schedule: str, steps: int, start: float, end: float) -> Tensor:
    """The variances of the forward steps: T, float32. Raises InputError for a schedule that is not known.

    linear: Ho et al. 2020; scaled_linear: linear in the root (latent diffusion); squaredcos_cap_v2: the cosine of
    Nichol and Dhariwal 2021, which needs neither start nor end.
    """
    if schedule == "linear":
        return torch.linspace(start, end, steps)
    if schedule == "scaled_linear":
        return torch.linspace(math.sqrt(start), math.sqrt(end), steps) ** 2
    if schedule == "squaredcos_cap_v2":
        u = torch.arange(steps + 1, dtype=torch.float64) / steps
        alphas_cumprod = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clamp(max=0.999).float()
    raise InputError(f"beta_schedule {schedule!r}: known are linear, scaled_linear, squaredcos_cap_v2")
