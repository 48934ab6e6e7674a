"""`python -m bench`, which `make bench` runs: the side by side table."""

from __future__ import annotations

import sys

from bench.run import main

sys.exit(main(sys.argv[1:]))
