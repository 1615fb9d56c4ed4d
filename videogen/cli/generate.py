"""`videogen generate`: text to a clip, or to a picture with `--frames 1`."""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from videogen.errors import InputError


def generate(
    prompt: Annotated[
        str | None, typer.Argument(help='What the clip shows; may be empty (""). Needed unless --prompt-map is given.')
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="FILE.mp4, .mov, .mkv, .webm, .gif, .webp or .png.")
    ] = Path("clip.mp4"),
    model: Annotated[
        str, typer.Option(help="`shapes` (the miniature), a model folder, a hub id, or a checkpoint file.")
    ] = "shapes",
    motion: Annotated[
        str | None, typer.Option(help="Motion module: a file, a MotionAdapter folder, or `none`.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames of the clip; 1 makes a picture.")] = 16,
    size: Annotated[
        str | None, typer.Option(help="WxH in pixels, multiples of 8; the model's own size by default.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Sampling steps; the model's own advice by default, else 25.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale, 1 is none; the model's own advice, else 7.5.")
    ] = None,
    rescale: Annotated[float, typer.Option(min=0, max=1, help="Share of guidance rescaling.")] = 0.0,
    prompt_2: Annotated[str | None, typer.Option("--prompt-2", help="For SDXL's second text encoder.")] = None,
    negative: Annotated[str | None, typer.Option(help="Negative prompt.")] = None,
    negative_2: Annotated[str | None, typer.Option("--negative-2", help="For SDXL's second text encoder.")] = None,
    clip_skip: Annotated[
        int, typer.Option(min=0, help="Layers of the text encoder left out at its end, for the prompt.")
    ] = 0,
    prompt_map: Annotated[
        Path | None, typer.Option(help="Prompts by frame: JSON {frame: text}, or lines `frame: text`.")
    ] = None,
    sampler: Annotated[
        str, typer.Option(help="ddim, ddpm, euler, euler_ancestral, heun, dpmpp_2m, unipc or lcm.")
    ] = "ddim",
    karras: Annotated[bool, typer.Option("--karras", help="Karras spacing, where the sampler has it.")] = False,
    eta: Annotated[float, typer.Option(min=0, max=1, help="Share of fresh noise, in ddim.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Frame i has the same noise in a clip of any length.")] = 0,
    lora: Annotated[
        list[str] | None, typer.Option(help="FILE or FILE:WEIGHT; repeatable. MotionLoRA and domain adapters too.")
    ] = None,
    motion_scale: Annotated[float, typer.Option(help="Strength of the motion modules.")] = 1.0,
    window: Annotated[int | None, typer.Option(min=1, help="Frames of a context window, for long clips.")] = None,
    overlap: Annotated[int | None, typer.Option(min=0, help="Frames that neighbouring windows share.")] = None,
    free_noise: Annotated[
        bool, typer.Option("--free-noise", help="FreeNoise for long clips, instead of windows.")
    ] = False,
    free_init: Annotated[int, typer.Option(min=1, help="Iterations of FreeInit; 1 is none.")] = 1,
    refiner: Annotated[
        str | None,
        typer.Option(help="A model that makes the last steps, as SDXL's refiner: a folder, a hub id or a file."),
    ] = None,
    refiner_start: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the path after which the refiner takes over.")
    ] = 0.8,
    fps: Annotated[str, typer.Option(help="Frames per second, a number or a fraction such as 30000/1001.")] = "8",
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder of CLIP's vocabulary, for single-file checkpoints.")
    ] = None,
    prediction: Annotated[
        str | None, typer.Option(help="epsilon or v_prediction, for files that cannot say it.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, ...")] = "cpu",
    explain: Annotated[bool, typer.Option("--explain", help="Say what would run, and run nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Make a clip from a text. It carries its recipe: `videogen reproduce FILE` makes it again."""
    from videogen import generation, video

    if (prompt is None) == (prompt_map is None):
        raise InputError('give a prompt, such as "a red circle moving right", or --prompt-map FILE (one of the two)')
    video.check_target(output, overwrite=overwrite, frames=frames)
    request = generation.Request(
        prompt=read_prompt_map(prompt_map) if prompt_map is not None else prompt or "",
        model=model, motion=motion, prompt_2=prompt_2, negative=negative, negative_2=negative_2, clip_skip=clip_skip,
        frames=frames, size=parse_size(size), steps=steps,
        guidance=guidance, rescale=rescale, sampler=sampler, eta=eta, karras=karras, seed=seed,
        lora=tuple(parse_lora(entry) for entry in lora or ()), motion_scale=motion_scale, window=window,
        overlap=overlap, free_noise=free_noise, free_init=free_init, refiner=refiner, refiner_start=refiner_start,
        fps=parse_fps(fps), tokenizer=tokenizer, prediction_type=prediction, dtype=dtype, device=device,
    )  # fmt: skip
    pipe = generation.load(request)
    if explain:
        from videogen.explanation import explain as explained

        for name, text in explained(pipe, request):
            typer.echo(f"{name:<10} {text}")
        return
    if not quiet:
        typer.echo("\n".join((pipe.line, *pipe.loras.lines)), err=True)
    clip, recipe = generation.make(pipe, request, progress=not quiet)
    for path in video.write(output, clip, recipe, overwrite=overwrite):
        typer.echo(str(path))


def parse_size(text: str | None) -> tuple[int, int] | None:
    """`WxH` -> (width, height). Raises InputError for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if not found:
        raise InputError(f"--size {text!r}: give WIDTHxHEIGHT, such as 512x512")
    return int(found[1]), int(found[2])


def parse_fps(text: str) -> Fraction:
    """A number or fraction above 0. Raises InputError for anything else."""
    # A number in scientific notation may have a billion digits.
    found = re.fullmatch(r"\d{1,9}(\.\d{1,9})?|(\d{1,9})/(\d{1,9})", text)
    if not found or (found[3] is not None and int(found[3]) == 0) or Fraction(text) == 0:
        raise InputError(f"--fps {text!r}: give a number above 0, or a fraction such as 30000/1001")
    return Fraction(text)


def parse_lora(text: str) -> tuple[str, float]:
    """`FILE` or `FILE:WEIGHT` -> (file, weight); a colon inside the path (a Windows drive) is no weight.

    Raises InputError without a file, and for a weight that is no number.
    """
    path, colon, weight = text.rpartition(":")
    number = re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", weight)
    if not colon or (not number and not Path(path).is_file()):
        path, weight = text, "1"
    elif not number:
        raise InputError(f"--lora {text!r}: {weight!r} is no number; give FILE:0.8, or FILE alone")
    if not path.strip():
        raise InputError(f"--lora {text!r} names no file; give FILE or FILE:WEIGHT")
    return path, float(weight)


def read_prompt_map(path: Path) -> dict[int, str]:
    """Prompts by frame from JSON `{"0": text, "8": text}` or lines `0: text`. Raises InputError for anything else."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors begin a file with a byte order mark
    except OSError as problem:
        raise InputError(f"the prompt map {path} cannot be read: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise InputError(f"the prompt map {path} is not text in UTF-8; save it as such") from problem
    try:
        entries = json.loads(text)
        pairs = list(entries.items()) if isinstance(entries, dict) else []
    except ValueError:
        pairs = [line.partition(":")[::2] for line in text.splitlines() if line.strip()]
    try:
        prompts = {int(frame): words.strip() for frame, words in pairs}
    except (ValueError, AttributeError):  # a key that is no number, a value that is no text
        prompts = {}
    if not prompts or min(prompts) < 0:
        raise InputError(
            f'the prompt map {path} needs JSON such as {{"0": "a red circle", "8": "a blue circle"}}, or lines `0: a red circle`'
        )
    return prompts
