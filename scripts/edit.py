"""`videogen edit`, for `python scripts/edit.py ...` and `accelerate launch scripts/edit.py ...`."""

import sys

from videogen.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["edit", *sys.argv[1:]]))
