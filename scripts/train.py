"""`videogen train`, for `python scripts/train.py ...` and `accelerate launch scripts/train.py ...`."""

import sys

from videogen.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
