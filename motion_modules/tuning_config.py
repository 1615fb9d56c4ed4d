"""Tune-A-Video's own configuration files, with every key of the authors' script, as a run of the one training loop.

Most keys carry over. `mixed_precision: fp16` becomes bfloat16, which needs no loss scaling; memory-efficient attention, `adam_epsilon` and
`validation_steps` are read and have no counterpart. What would change the training more than that, and cannot be done, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from motion_modules.tune_a_video import TRAINABLE
from motion_modules.tuning import Settings, TrainData
from videogen.training.config import RunConfig, Strict, load, validate


class ValidationData(Strict):
    """The clips that are made from the tuned model: prompts, and how they are sampled."""

    prompts: tuple[str, ...] = ()
    video_length: int | None = Field(None, gt=0)
    width: int | None = Field(None, gt=0)
    height: int | None = Field(None, gt=0)
    num_inference_steps: int = Field(50, gt=0)
    guidance_scale: float = 12.5
    use_inv_latent: bool = True
    num_inv_steps: int | None = Field(None, gt=0)
    negative_prompt: str | None = None


class AuthorsConfig(Strict):
    """The keys of the authors' training script, with its defaults."""

    pretrained_model_path: str
    output_dir: Path
    train_data: TrainData
    validation_data: ValidationData = ValidationData()
    validation_steps: int = 100
    trainable_modules: tuple[str, ...] = TRAINABLE
    train_batch_size: int = Field(1, gt=0)
    max_train_steps: int = Field(500, gt=0)
    learning_rate: float = Field(3e-5, gt=0)
    scale_lr: Literal[False] = False
    lr_scheduler: Literal["constant", "constant_with_warmup", "cosine"] = "constant"
    lr_warmup_steps: int = Field(0, ge=0)
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_weight_decay: float = 1e-2
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    gradient_accumulation_steps: Literal[1] = 1
    gradient_checkpointing: bool = True
    checkpointing_steps: int = Field(500, ge=0)
    resume_from_checkpoint: str | None = None
    mixed_precision: Literal["fp16", "bf16", "no"] | None = "fp16"
    use_8bit_adam: bool = False
    enable_xformers_memory_efficient_attention: bool = True
    seed: int | None = None

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _unquoted(cls, value: object) -> object:
        """YAML reads a bare `no` as false."""
        return "no" if value is False else value

    @model_validator(mode="after")
    def _agree(self) -> AuthorsConfig:
        made, trained = self.validation_data, self.train_data
        if made.use_inv_latent and made.num_inv_steps not in (None, made.num_inference_steps):
            raise ValueError("num_inv_steps and num_inference_steps must agree: inversion undoes the same steps")
        for name, asked, given in (("width", made.width, trained.width), ("height", made.height, trained.height)):
            if asked not in (None, given):
                raise ValueError(
                    f"validation_data.{name} must be train_data's {given}: clips are made at the size of the tuned one"
                )
        if (made.video_length or 1) > trained.n_sample_frames:
            raise ValueError("validation_data.video_length must be at most train_data.n_sample_frames")
        return self

    def run(self) -> RunConfig[Settings]:
        """The run of the one loop; checkpoints and the tuned model go into `output_dir`, as the authors' do."""
        steps = self.max_train_steps
        optimization = {
            "optimizer": "adamw8bit" if self.use_8bit_adam else "adamw", "adamw": self.learning_rate,
            "betas": (self.adam_beta1, self.adam_beta2), "weight_decay": self.adam_weight_decay,
            "schedule": "cosine" if self.lr_scheduler == "cosine" else "constant",
            "warmup": 0 if self.lr_scheduler == "constant" else self.lr_warmup_steps, "clip": self.max_grad_norm, "average": 0.0,
        }  # fmt: skip
        settings = {
            name: getattr(self, name)
            for name in (
                "pretrained_model_path",
                "train_data",
                "trainable_modules",
                "train_batch_size",
                "gradient_checkpointing",
            )
        }
        values: dict[str, Any] = {
            "recipe": "tune_a_video", "out": self.output_dir, "export": self.output_dir, "seed": self.seed or 0,
            "budget": {"steps": steps}, "precision": "float32" if self.mixed_precision in (None, "no") else "bfloat16",
            "optimization": optimization, "every": {"checkpoint": self.checkpointing_steps}, "settings": settings,
        }  # fmt: skip
        return RunConfig[Settings].model_validate(values)


def read_authors(path: str | Path, overrides: Sequence[str] = ()) -> AuthorsConfig:
    """A configuration file with the authors' keys, `a.b=value` put into it. Raises InputError with the path of the first wrong key."""
    config: AuthorsConfig = validate(AuthorsConfig, load(path, overrides))
    return config
