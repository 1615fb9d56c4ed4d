"""`videogen edit`: a clip or picture, changed by a new prompt."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from videogen import options
from videogen.cli import words
from videogen.cli.folders import config_file
from videogen.errors import InputError

if TYPE_CHECKING:
    from videogen.editing import Configured, Offer

CLIP = typer.Argument(help="A video, gif, webp, picture, or folder of pictures; may come from --config.")
PROMPT = typer.Argument(help="What the edited clip is to show; may come from --config.")
OUTPUT = typer.Option("-o", "--output", help="edited.mp4 by default, for pictures edited.png.")
SOURCE_PROMPT = typer.Option(help="What the clip shows. With it the words that stay hold the clip.")
METHOD = typer.Option(
    help="sdedit, ddim_inversion, null_text, prompt_to_prompt, fatezero or tune_a_video; chosen by what is given."
)
KIND = typer.Option("--edit", help="auto (found from the two prompts), replace, refine or reweight.")
PRESET = typer.Option(help="FateZero's settings: style, attribute, shape or reconstruction.")
BLEND = typer.Option(help="A word of either prompt: only where it is may change. Repeatable.")
WEIGHT = typer.Option(help="WORD=NUMBER: how much a word of the prompt counts. Repeatable.")
STRENGTH = typer.Option(
    help="Share of the way to noise: less keeps more. The model's own advice, else 0.8 for sdedit and 1 for all others."
)
TUNING_STEPS = typer.Option(min=0, help="For tune_a_video; 200 by default.")
LEARNING_RATE = typer.Option(help="For tune_a_video; by the model's size.")
CONFIG = typer.Option(help="A YAML file with the keys of FateZero's or Tune-A-Video's authors.")
SPAN = typer.Option("--range", help="Seconds FROM-TO that are edited, e.g. 2.0-4.5; the rest is copied.")
SIZE = typer.Option(help="WxH to work at, multiples of 8; by default the clip's aspect at the model's area.")
COMPARE = typer.Option(help="Write source and edit side by side into this file too.")
SHOW_MASK = typer.Option(help="Write the mask that was used into this file too.")
STEPS = typer.Option(min=1, help="Sampling steps; 50 with inversion, else the model's own advice.")


def edit(
    clip: Annotated[str | None, CLIP] = None,
    prompt: Annotated[str | None, PROMPT] = None,
    output: Annotated[Path | None, OUTPUT] = None,
    source_prompt: Annotated[str | None, SOURCE_PROMPT] = None,
    method: Annotated[str | None, METHOD] = None,
    kind: Annotated[str, KIND] = "auto",
    preset: Annotated[str | None, PRESET] = None,
    blend: Annotated[list[str] | None, BLEND] = None,
    weight: Annotated[list[str] | None, WEIGHT] = None,
    strength: Annotated[float | None, STRENGTH] = None,
    tuning_steps: Annotated[int | None, TUNING_STEPS] = None,
    learning_rate: Annotated[float | None, LEARNING_RATE] = None,
    config: Annotated[str | None, CONFIG] = None,
    span: Annotated[str | None, SPAN] = None,
    size: Annotated[str | None, SIZE] = None,
    chunk: Annotated[int | None, typer.Option(min=1, help="Frames that are edited together.")] = None,
    overlap: Annotated[int | None, typer.Option(min=0, help="Frames that neighbouring chunks share.")] = None,
    compare: Annotated[Path | None, COMPARE] = None,
    show_mask: Annotated[Path | None, SHOW_MASK] = None,
    model: Annotated[str | None, options.MODEL] = None,
    motion: Annotated[str | None, options.MOTION] = None,
    steps: Annotated[int | None, STEPS] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale, 1 is none; the model's own advice.")] = None,
    negative: Annotated[str | None, options.NEGATIVE] = None,
    seed: Annotated[int | None, typer.Option(help="For methods that draw noise; 0 by default.")] = None,
    lora: Annotated[list[str] | None, typer.Option(help="FILE or FILE:WEIGHT; repeatable.")] = None,
    motion_scale: Annotated[float, options.MOTION_SCALE] = 1.0,
    tokenizer: Annotated[str | None, options.TOKENIZER] = None,
    prediction: Annotated[str | None, options.PREDICTION] = None,
    dtype: Annotated[str, options.DTYPE] = "float32",
    device: Annotated[str, options.DEVICE] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    quiet: Annotated[bool, options.QUIET] = False,
) -> None:
    """Change a clip by a new prompt. Frame count, rate, size, aspect and sound stay the clip's."""
    from videogen import chunked, editing, generation

    offer = editing.offered()
    said = said_over(
        configured(offer, config, method, clip, prompt, source_prompt, model),
        {"tuning_steps": tuning_steps, "learning_rate": learning_rate},
        clip=clip or None, prompt=prompt, source_prompt=source_prompt, method=method or None, model=model or None,
        negative=negative, steps=steps, guidance=guidance, seed=seed, chunk=chunk,
    )  # fmt: skip
    if not said.clip or said.prompt is None:
        raise InputError('give a clip and a prompt, such as clip.mp4 "a blue circle moving right"')
    base = generation.Request(
        prompt=said.prompt, model=said.model or "shapes", motion=motion, steps=said.steps, guidance=said.guidance,
        negative=said.negative, seed=said.seed or 0, lora=words.parse_loras(lora), motion_scale=motion_scale,
        tokenizer=tokenizer, prediction_type=prediction, dtype=dtype, device=device,
    )  # fmt: skip
    request = editing.Request(
        clip=said.clip, base=base, source_prompt=said.source_prompt, method=said.method or None, edit=kind, preset=preset,
        blend=tuple(blend or ()), weights=dict(map(words.parse_weight, weight or ())), strength=strength, chunk=said.chunk,
        overlap=overlap, size=words.parse_size(size), span=words.parse_range(span), settings=said.settings,
    )  # fmt: skip
    targets = chunked.Targets((output or output_for(said.clip),), compare, show_mask, overwrite)
    tell = (lambda line: None) if quiet else partial(typer.echo, err=True)
    chunked.edit_file(request, targets, offer=offer, tell=tell, progress=not quiet)
    typer.echo("\n".join(map(str, targets.all())))


def configured(
    offer: "Offer",
    config: str | None,
    method: str | None,
    clip: str | None,
    prompt: str | None,
    source_prompt: str | None,
    model: str | None,
) -> "Configured":
    """What the configuration file says, if there is one. Raises InputError for a method that the file is not for."""
    from videogen.editing import Configured

    if config is None:
        return Configured("")
    found = offer.configured(config_file(config), clip, prompt, source_prompt, model)
    if method is not None and method.replace("-", "_") != found.method:
        raise InputError(f"--config {config} is for {found.method}; leave --method {method} out")
    return found


def said_over(found: "Configured", settings: dict[str, Any], **said: Any) -> "Configured":
    """What the command line says, None where it says nothing, over what the configuration file says."""
    given = {name: value for name, value in said.items() if value is not None}
    settings = {name: value for name, value in settings.items() if value is not None}
    return dataclasses.replace(found, **given, settings={**found.settings, **settings})


def output_for(clip: str) -> Path:
    """The file that is written where none is named."""
    from videogen.video import STILLS

    return Path("edited.png" if Path(clip).suffix.lower() in STILLS else "edited.mp4")
