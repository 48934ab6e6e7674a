"""All kinds of operations there are, for tests that play them: whatever module of the table they are in."""

from __future__ import annotations

from typing import Final

from tests.kvstore import model_leases, model_reads
from tests.kvstore.model_operations import EVERYTHING, KINDS, Pair, new_machine, restored

__all__ = ["EVERYTHING", "KINDS", "MODULES", "NAMES", "Pair", "new_machine", "restored"]

MODULES: Final = (model_leases, model_reads)  # beside model_operations itself

# What to draw from: what makes something to look at comes more often.
_OFTEN: Final = ["put", "put", "put", "put", "transaction", "transaction", "lease_grant", "put_with_lease"]
NAMES: Final = [*sorted(KINDS), *_OFTEN, "delete_range", "retry"]
