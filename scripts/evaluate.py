"""`videogen evaluate`, for `python scripts/evaluate.py ...` and `accelerate launch scripts/evaluate.py ...`."""

import sys

from videogen.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
