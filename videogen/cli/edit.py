"""`videogen edit`: a clip or picture, changed by a new prompt."""

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from videogen.errors import InputError


def edit(
    clip: Annotated[
        str | None, typer.Argument(help="A video, gif, webp, picture, or folder of pictures; may come from --config.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Argument(help="What the edited clip is to show; may come from --config.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="edited.mp4 by default, for pictures edited.png.")
    ] = None,
    source_prompt: Annotated[
        str | None, typer.Option(help="What the clip shows. With it the words that stay hold the clip.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="sdedit, ddim_inversion, null_text, prompt_to_prompt, fatezero or tune_a_video; chosen by what is given."
        ),
    ] = None,
    kind: Annotated[
        str, typer.Option("--edit", help="auto (found from the two prompts), replace, refine or reweight.")
    ] = "auto",
    preset: Annotated[
        str | None, typer.Option(help="FateZero's settings: style, attribute, shape or reconstruction.")
    ] = None,
    blend: Annotated[
        list[str] | None, typer.Option(help="A word of either prompt: only where it is may change. Repeatable.")
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="WORD=NUMBER: how much a word of the prompt counts. Repeatable.")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="For sdedit: 0 keeps the clip, 1 all but forgets it; 0.8 by default.")
    ] = None,
    tuning_steps: Annotated[int | None, typer.Option(min=0, help="For tune_a_video; 200 by default.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="For tune_a_video; by the model's size.")] = None,
    config: Annotated[
        str | None, typer.Option(help="A YAML file with the keys of FateZero's or Tune-A-Video's authors.")
    ] = None,
    span: Annotated[
        str | None, typer.Option("--range", help="Seconds FROM-TO that are edited, e.g. 2.0-4.5; the rest is copied.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="WxH to work at, multiples of 8; by default the clip's aspect at the model's area."),
    ] = None,
    chunk: Annotated[int | None, typer.Option(min=1, help="Frames that are edited together.")] = None,
    overlap: Annotated[int | None, typer.Option(min=0, help="Frames that neighbouring chunks share.")] = None,
    compare: Annotated[Path | None, typer.Option(help="Write source and edit side by side into this file too.")] = None,
    show_mask: Annotated[Path | None, typer.Option(help="Write the mask that was used into this file too.")] = None,
    model: Annotated[
        str | None, typer.Option(help="`shapes` (the miniature), a model folder, a hub id, or a checkpoint file.")
    ] = None,
    motion: Annotated[
        str | None, typer.Option(help="Motion module: a file, a MotionAdapter folder, or `none`.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Sampling steps; 50 with inversion, else the model's own advice.")
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale, 1 is none; the model's own advice.")] = None,
    negative: Annotated[str | None, typer.Option(help="Negative prompt.")] = None,
    seed: Annotated[int | None, typer.Option(help="For methods that draw noise; 0 by default.")] = None,
    lora: Annotated[list[str] | None, typer.Option(help="FILE or FILE:WEIGHT; repeatable.")] = None,
    motion_scale: Annotated[float, typer.Option(help="Strength of the motion modules.")] = 1.0,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder of CLIP's vocabulary, for single-file checkpoints.")
    ] = None,
    prediction: Annotated[
        str | None, typer.Option(help="epsilon or v_prediction, for files that cannot say it.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, ...")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Change a clip by a new prompt. Frame count, rate, size, aspect and sound stay the clip's."""
    from videogen import chunked, editing, generation
    from videogen.cli.folders import config_file
    from videogen.cli.generate import parse_lora, parse_size

    offer = editing.offered()
    found = editing.Configured("")
    if config is not None:
        found = offer.configured(config_file(config), clip, prompt, model)
        if method is not None and method.replace("-", "_") != found.method:
            raise InputError(f"--config {config} is for {found.method}; leave --method {method} out")
    clip, prompt = clip or found.clip, prompt if prompt is not None else found.prompt
    if not clip or prompt is None:
        raise InputError('give a clip and a prompt, such as clip.mp4 "a blue circle moving right"')
    own = {"tuning_steps": tuning_steps, "learning_rate": learning_rate}
    base = generation.Request(
        prompt=prompt, model=model or found.model or "shapes", motion=motion, steps=steps or found.steps,
        guidance=found.guidance if guidance is None else guidance, negative=found.negative if negative is None else negative,
        seed=(found.seed or 0) if seed is None else seed, lora=tuple(parse_lora(entry) for entry in lora or ()),
        motion_scale=motion_scale, tokenizer=tokenizer, prediction_type=prediction, dtype=dtype, device=device,
    )  # fmt: skip
    request = editing.Request(
        clip=clip, base=base, source_prompt=found.source_prompt if source_prompt is None else source_prompt,
        method=method or found.method or None, edit=kind, preset=preset, blend=tuple(blend or ()),
        weights=dict(parse_weight(entry) for entry in weight or ()), strength=strength, size=parse_size(size),
        span=parse_range(span), chunk=chunk or found.chunk, overlap=overlap,
        settings={**found.settings, **{name: value for name, value in own.items() if value is not None}},
    )  # fmt: skip
    if output is None:
        output = Path("edited.png" if Path(clip).suffix.lower() in (".png", ".jpg", ".jpeg") else "edited.mp4")

    def tell(line: str) -> None:
        if not quiet:
            typer.echo(line, err=True)

    targets = chunked.Targets((output,), compare, show_mask, overwrite)
    chunked.edit_file(request, targets, offer=offer, tell=tell, progress=not quiet)
    for path in targets.all():
        typer.echo(str(path))


def parse_range(text: str | None) -> tuple[Fraction | None, Fraction | None]:
    """`FROM-TO` in seconds, either end open -> (from, to). Raises InputError for anything else."""
    if text is None:
        return None, None
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)?-(\d{1,9}(?:\.\d{1,9})?)?", text)
    ends = tuple(None if end is None else Fraction(end) for end in found.groups()) if found else ()
    if not found or (ends[0] is not None and ends[1] is not None and ends[0] >= ends[1]):
        raise InputError(f"--range {text!r}: give seconds FROM-TO, such as 2.0-4.5, 2.0- or -4.5")
    return ends[0], ends[1]


def parse_weight(text: str) -> tuple[str, float]:
    """`WORD=NUMBER` -> (word, number). Raises InputError for anything else."""
    word, equals, number = text.rpartition("=")
    if not equals or not word.strip() or not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", number):
        raise InputError(f"--weight {text!r}: give WORD=NUMBER, such as blue=2")
    return word, float(number)
