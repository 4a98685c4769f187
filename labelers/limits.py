"""How hard a teacher is pressed: attempts, back-off, and when to give up on it altogether."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a labeling run.

    Args:
        attempts: Most attempts at one request, the first included.
        backoff: Seconds within which the second attempt is made; doubled for each further one.
        longest_backoff: Most seconds between two attempts.
        give_up_after: Failed attempts in a row, over all requests, after which the run stops. One
            success anywhere starts the count anew.
    """

    attempts: int = 6
    backoff: float = 0.5
    longest_backoff: float = 30.0
    give_up_after: int = 50

    def delay(self, failures: int, random_source: random.Random) -> float:
        """Seconds to wait after that many failures: exponential back-off with full jitter."""
        return random_source.uniform(
            0.0, min(self.longest_backoff, self.backoff * 2.0 ** (failures - 1))
        )
