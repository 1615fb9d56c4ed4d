"""What the net said at (x, t), readable in every parametrisation; and the contract of nets, guidance and samplers.

With x_t = alpha x0 + sigma eps (Kingma et al. 2021, "Variational diffusion models"), every parametrisation is a mixture
out = c x0 + d eps:

    kind   c      d      source
    eps    0      1      Ho et al. 2020, eq. 12
    x0     1      0
    v      -sigma alpha  Salimans and Ho 2022, "Progressive distillation", section 4
    flow   -1     1      Liu et al. 2022, "Rectified flow": the velocity eps - x0

so x0 and eps are the solution of two linear equations, whatever the net was trained to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from videogen.errors import InputError
from videogen.mixing import along, mix

Kind = Literal["eps", "v", "x0", "flow"]

KIND_OF_CONFIG: dict[str, Kind] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the net said about x at one time. Differentiable in x and out.

    Coefficients are applied in float32 (float64 for float64 tensors) and every property comes in x's dtype, so that a
    bfloat16 net beside a float32 x loses nothing more than its own output did.
    """

    x: Tensor  # b f c h w
    out: Tensor  # like x: what the net returned
    alpha: float | Tensor  # of x's time: one number, or b
    sigma: float | Tensor
    kind: Kind  # how out is to be read
    rows: tuple[frozenset[str], ...] = ()  # what each batch item is: {"cond"}, {"uncond", "source"}, ...
    kept: Mapping[str, Any] = field(default_factory=dict)  # what a control asked to keep; of all rows, always

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"a prediction of kind {self.kind!r}: choose one of {', '.join(get_args(Kind))}")

    @property
    def x0(self) -> Tensor:
        """The clean clip."""
        if self.kind == "x0":
            return self.out.to(self.x.dtype)
        _, d, determinant = self._mixture()
        return mix(d / determinant, self.x, -_double(self.sigma) / determinant, self.out)

    @property
    def eps(self) -> Tensor:
        """The noise, of unit variance where the net is right."""
        if self.kind == "eps":
            return self.out.to(self.x.dtype)
        c, _, determinant = self._mixture()
        return mix(-c / determinant, self.x, _double(self.alpha) / determinant, self.out)

    @property
    def v(self) -> Tensor:
        """alpha eps - sigma x0."""
        if self.kind == "v":
            return self.out.to(self.x.dtype)
        return mix(self.alpha, self.eps, -_double(self.sigma), self.x0)

    @property
    def score(self) -> Tensor:
        """The gradient of log p_t(x): -eps / sigma (Song et al. 2021)."""
        return (self.eps * (-1 / along(self.sigma, self.x))).to(self.x.dtype)

    @property
    def velocity(self) -> Tensor:
        """eps - x0, what a rectified flow learns."""
        if self.kind == "flow":
            return self.out.to(self.x.dtype)
        return self.eps - self.x0

    def __getitem__(self, words: str | tuple[str, ...]) -> "Prediction":
        """The items whose row has the word, or all the words. Raises InputError where there is none."""
        wanted = {words} if isinstance(words, str) else set(words)
        chosen = [i for i, row in enumerate(self.rows) if wanted <= row]
        if not chosen:
            have = ", ".join("{" + ", ".join(sorted(row)) + "}" for row in dict.fromkeys(self.rows)) or "none named"
            raise InputError(f"no row is {' and '.join(sorted(wanted))}; the rows are: {have}")
        first, last = chosen[0], chosen[-1] + 1
        # Rows that lie together are a view, which costs nothing.
        index = slice(first, last) if last - first == len(chosen) else chosen

        def pick(value: float | Tensor) -> float | Tensor:
            return value[index] if isinstance(value, Tensor) and value.ndim else value

        return self.replace(
            x=self.x[index],
            out=self.out[index],
            alpha=pick(self.alpha),
            sigma=pick(self.sigma),
            rows=tuple(self.rows[i] for i in chosen),
        )

    def replace(self, **changes: Any) -> "Prediction":
        """The same with other fields, as in `pred.replace(out=x0, kind="x0")`."""
        return replace(self, **changes)

    def _mixture(self) -> tuple[Tensor, Tensor, Tensor]:
        """c and d of out = c x0 + d eps, and the determinant alpha d - sigma c, in float64."""
        alpha, sigma = _double(self.alpha), _double(self.sigma)
        zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
        c, d = {"eps": (zero, one), "x0": (one, zero), "v": (-sigma, alpha), "flow": (-one, one)}[self.kind]
        determinant = alpha * d - sigma * c
        if bool((determinant == 0).any()):
            missing = "the noise" if self.kind == "x0" else "the clean clip"
            raise InputError(
                f"{self.kind} says nothing about {missing} where alpha is {float(alpha.min()):g} and sigma "
                f"{float(sigma.min()):g}; start elsewhere, or use a v-prediction model (zero terminal noise needs one)"
            )
        return c, d, determinant


def _double(value: float | Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


class Denoise(Protocol):
    """The one contract: what guidance wraps, and samplers and inversion consume. It never switches gradients off."""

    def __call__(self, x: Tensor, t: float | Tensor, frames: Sequence[int] | None = None) -> Prediction:
        """What is said about x: b f c h w at position t; `frames` are the ids of x's frames in the whole clip."""
        ...


def kind_from_config(config: Mapping[str, Any]) -> Kind:
    """What the net predicts, by `prediction_type` of a scheduler_config.json. Raises InputError for an unknown word."""
    if str(config.get("_class_name", "")).startswith("FlowMatch"):
        return "flow"
    word = config.get("prediction_type", "epsilon")
    if word not in KIND_OF_CONFIG:
        raise InputError(f"prediction_type {word!r} in the scheduler config: known are {', '.join(KIND_OF_CONFIG)}")
    return KIND_OF_CONFIG[word]
