"""`python -m snnjax` is the command line."""

import sys

from snnjax.cli import main

if __name__ == "__main__":
    sys.exit(main())
