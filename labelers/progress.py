"""How far a labeling run is, as those who watch it are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a labeling run is.

    Attributes:
        phase: ``label`` or ``rationale``.
        done: Rows finished in this phase, failed ones included.
        total: Rows of this phase.
        asked: Requests answered by the teacher in this run.
        reused: Requests answered by the store.
        retries: Attempts that failed and were made again.
        failed: Rows that ended with an error.
        prompt_tokens: Tokens read by the teacher in this run (reused answers not counted).
        completion_tokens: Tokens written by it in this run.
        cost_usd: Cost of this run so far; None where the teacher has no prices.
        notes: What the user should know about how the labels were made.
        paused: Seconds of pause that an endpoint has just asked for; 0 when answers flow.
        unfinished: Told at the end: rows that lack their label or their rationale because a server failed
            or the budget was spent. Another run may get them.
    """

    phase: str
    done: int
    total: int
    asked: int
    reused: int
    retries: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    notes: tuple[str, ...] = ()
    paused: float = 0.0
    unfinished: int = 0


OnProgress = Callable[[Progress], None]
