"""Tune-A-Video from a file with the authors' keys, for `python` and `accelerate launch`: `scripts/tune_a_video.py --config FILE [a.b=value ...]`.

Tunes into the file's `output_dir` and writes a clip for each of its prompts to `output_dir/samples`.
"""

import argparse
import sys
from pathlib import Path

from videogen.errors import exit_code


def main() -> None:
    """Tune and edit. Raises InputError for a wrong file or value."""
    from editors.tune_a_video import from_config
    from motion_modules.tuning_config import read_authors
    from videogen.clip import Clip
    from videogen.video import write

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="a YAML file with the authors' keys")
    parser.add_argument("overrides", nargs="*", help="a.b=value, in place of what the file says")
    asked = parser.parse_args()
    made = from_config(asked.config, asked.overrides)
    samples = Path(read_authors(asked.config, asked.overrides).output_dir) / "samples"
    samples.mkdir(exist_ok=True)
    for i, (prompt, edited) in enumerate(made.items()):
        print(prompt, *write(samples / f"{i:02}.mp4", Clip(edited.frames), overwrite=True))


if __name__ == "__main__":
    sys.exit(exit_code(main))
