"""`make demo`: four clips from the miniature model, a contact sheet of them and a GIF, all under out/. Needs no network."""

import sys
import time
from pathlib import Path

import torch

from videogen.errors import exit_code

OUT = Path("out")
PROMPTS = {
    "right": "a red circle moving right on a black background",
    "growing": "a yellow star growing on a navy background",
    "up": "a green square moving up on a gray background",
    "two": "a blue circle left of an orange triangle on a black background",
}


def main() -> None:
    """Make the demo. Raises InputError."""
    for path in demo(OUT):
        print(path)


def demo(folder: Path) -> list[Path]:
    """Write four clips, `contact_sheet.png` and `demo.gif` into `folder`; return the paths. Raises InputError."""
    from videogen import generation, video
    from videogen.clip import Clip, contact_sheet
    from videogen.files import replacing

    start = time.perf_counter()
    folder.mkdir(exist_ok=True)
    pipe = generation.load(generation.Request(""))
    clips, made = [], []
    for name, prompt in PROMPTS.items():
        clip, recipe = generation.make(pipe, generation.Request(prompt))
        clips.append(clip)
        made += video.write(folder / f"{name}.mp4", clip, recipe, overwrite=True)
    made.append(folder / "contact_sheet.png")
    with replacing(made[-1]) as beside:
        contact_sheet(clips, list(PROMPTS.values()), columns=8, width=128).save(beside)
    side_by_side = Clip(torch.cat([clip.frames for clip in clips], dim=-1), clips[0].fps)
    made += video.write(folder / "demo.gif", side_by_side, overwrite=True)
    print(f"{len(clips)} clips in {time.perf_counter() - start:.0f} s")
    return made


if __name__ == "__main__":
    sys.exit(exit_code(main))
