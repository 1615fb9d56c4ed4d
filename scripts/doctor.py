"""`videogen doctor`, for `python scripts/doctor.py ...` and `accelerate launch scripts/doctor.py ...`."""

import sys

from videogen.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["doctor", *sys.argv[1:]]))
