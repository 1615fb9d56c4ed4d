"""`make demo`: four clips from the miniature model, a contact sheet of them and a GIF, all under out/. Needs no network."""

import sys
import time
from fractions import Fraction
from pathlib import Path

import torch

from videogen.errors import InputError

OUT = Path("out")
FPS = Fraction(8)
SEED = 0
PROMPTS = {
    "right": "a red circle moving right on a black background",
    "growing": "a yellow star growing on a navy background",
    "up": "a green square moving up on a gray background",
    "two": "a blue circle left of an orange triangle on a black background",
}


def main() -> int:
    """Make the demo and return the exit code."""
    try:
        made = demo(OUT)
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    for path in made:
        print(path)
    return 0


def demo(folder: Path) -> list[Path]:
    """Write four clips, `contact_sheet.png` and `demo.gif` into `folder`; return the paths. Raises InputError."""
    from videogen.clip import Clip, contact_sheet
    from videogen.files import replacing
    from videogen.movie import write_movie
    from videogen.pictures import write_gif
    from videogen.pipeline import Pipeline

    start = time.perf_counter()
    pipe = Pipeline.from_pretrained("shapes")
    folder.mkdir(exist_ok=True)
    clips, made = [], []
    for name, prompt in PROMPTS.items():
        frames = pipe(prompt, seed=SEED, output_type="pt").frames[0]
        clips.append(Clip(frames, FPS))
        made.append(folder / f"{name}.mp4")
        with replacing(made[-1]) as beside:
            write_movie(beside, clips[-1].to_numpy(), FPS, prompt, None)
    made.append(folder / "contact_sheet.png")
    with replacing(made[-1]) as beside:
        contact_sheet(clips, list(PROMPTS.values()), columns=8, width=128).save(beside)
    made.append(folder / "demo.gif")
    with replacing(made[-1]) as beside:
        side_by_side = Clip(torch.cat([clip.frames for clip in clips], dim=-1), FPS)
        write_gif(beside, side_by_side.to_numpy(), FPS, "; ".join(PROMPTS.values()))
    print(f"{len(clips)} clips in {time.perf_counter() - start:.0f} s")
    return made


if __name__ == "__main__":
    sys.exit(main())
