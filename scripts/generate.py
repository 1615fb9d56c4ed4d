"""`videogen generate`, for `python scripts/generate.py ...` and `accelerate launch scripts/generate.py ...`."""

import sys

from videogen.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["generate", *sys.argv[1:]]))
