"""`videogen data`, for `python scripts/data.py ...`."""

import sys

from videogen.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["data", *sys.argv[1:]]))
