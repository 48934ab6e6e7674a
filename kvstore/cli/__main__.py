"""`python -m kvstore.cli`, for a Python whose scripts are not on the path."""

from __future__ import annotations

from kvstore.cli import main

main()
