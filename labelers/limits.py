"""How hard a teacher is pressed: attempts, back-off, ceilings, and when to give up on it altogether."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from labelers.teachers import TeacherError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a labeling run.

    How many requests are under way at each endpoint adapts by itself between 1 and the teacher's
    ``concurrency``: doubled from 32 until the first overload, then one more per round answered, and
    halved at each overload (additive increase, multiplicative decrease: Chiu and Jain, 1989).

    Args:
        attempts: Most attempts at one request, the first included. A refusal with ``Retry-After`` is
            a pause of the endpoint and no attempt.
        backoff: Seconds within which the second attempt is made; doubled for each further one, with
            full jitter.
        longest_backoff: Most seconds between two attempts.
        longest_pause: Most seconds of pause that a server may ask for; a longer one stops the run.
        give_up_after: Rounds in a row, at every endpoint, in which requests failed and none
            succeeded, after which the run stops if rows are left that were not begun. From the third
            on an endpoint rests between them.
        requests_per_minute: Most requests sent to one endpoint within any minute, retries included.
        tokens_per_minute: Most tokens within any minute at one endpoint; a request under way counts
            with the most that it can take.

    Raises:
        TeacherError: If a limit is not positive.
    """

    attempts: int = 6
    backoff: float = 0.5
    longest_backoff: float = 30.0
    longest_pause: float = 900.0
    give_up_after: int = 12
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        for name in ("attempts", "give_up_after", "requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TeacherError(f"limits.{name} is {value}: it must be at least 1")
        for name in ("backoff", "longest_backoff", "longest_pause"):
            seconds = getattr(self, name)
            if not seconds >= 0:
                raise TeacherError(f"limits.{name} is {seconds}: it must be 0 seconds or more")

    def delay(self, failures: int, random_source: random.Random) -> float:
        """Seconds to wait after that many failures: exponential back-off with full jitter."""
        return random_source.uniform(
            0.0, min(self.longest_backoff, self.backoff * 2.0 ** (failures - 1))
        )


class Ceiling:
    """At most ``most`` within any stretch of ``seconds``: what was admitted, and when.

    The whole log of the stretch is kept, because a bucket that refills would let twice the ceiling
    through in an unlucky minute.
    """

    def __init__(self, most: int, seconds: float = 60.0) -> None:
        self.most = most
        self.seconds = seconds
        self._admitted: deque[list[float]] = deque()
        self._sum = 0.0

    def wait(self, amount: float, now: float) -> float:
        """Seconds until ``amount`` more fits; 0 if it does now. More than ``most`` fits an empty log."""
        while self._admitted and self._admitted[0][0] <= now - self.seconds:
            self._sum -= self._admitted.popleft()[1]
        if not self._admitted or self._sum + amount <= self.most:
            return 0.0
        left = self._sum
        for time, admitted in self._admitted:
            left -= admitted
            if left + amount <= self.most:
                return max(time + self.seconds - now, 1e-3)
        return max(self._admitted[-1][0] + self.seconds - now, 1e-3)

    def admit(self, amount: float, now: float) -> list[float]:
        """Log ``amount``; the entry returned can be corrected with :meth:`correct`."""
        entry = [now, amount]
        self._admitted.append(entry)
        self._sum += amount
        return entry

    def correct(self, entry: list[float], amount: float) -> None:
        """Replace an entry's amount by what it turned out to be."""
        if self._admitted and entry[0] >= self._admitted[0][0]:
            self._sum += amount - entry[1]
        entry[1] = amount
