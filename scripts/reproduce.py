"""`videogen reproduce`, for `python scripts/reproduce.py ...` and `accelerate launch scripts/reproduce.py ...`."""

import sys

from videogen.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["reproduce", *sys.argv[1:]]))
