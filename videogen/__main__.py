"""`python -m videogen` is the command `videogen`."""

import sys

from videogen.cli.app import main

sys.exit(main())
