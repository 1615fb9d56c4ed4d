"""`videogen`, and `python -m videogen`, which is the same."""

import sys


def main() -> int:
    """Run the command line and return its exit code; interrupted while that is still being imported, too, with one line."""
    try:
        from videogen.cli.app import main as run

        return run()
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
