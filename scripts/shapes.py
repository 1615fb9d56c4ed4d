"""`videogen shapes`, for `python scripts/shapes.py ...`."""

import sys

from videogen.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["shapes", *sys.argv[1:]]))
