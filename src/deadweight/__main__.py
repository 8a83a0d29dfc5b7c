"""`python -m deadweight`."""

import sys

from deadweight.cli import main

if __name__ == "__main__":
    sys.exit(main())
