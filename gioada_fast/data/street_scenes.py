"""The former name of the command line ``python -m gioada_fast.street_scenes``."""

import sys

from ..street_scenes.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
