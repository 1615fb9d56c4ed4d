"""`videogen inspect`, for `python scripts/inspect_file.py ...` and `accelerate launch scripts/inspect_file.py ...`."""

import sys

from videogen.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["inspect", *sys.argv[1:]]))
