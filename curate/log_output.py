"""How exchanges, costs and what was pruned are shown on a terminal."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Iterator, Sequence

from curate.results import aligned
from labelers.exchange_log import (
    RunCost,
    answer_parts,
    answered_text,
    model_name,
    request_turns,
    row_prompt,
    tokens,
)
from labelers.exchanges import Exchange
from labelers.pruning import Pruned


def count(number: int, what: str) -> str:
    """A number and what it counts, in the right number."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _clean(text: str) -> str:
    """Text that cannot steer a terminal: control characters, line breaks apart, are written out."""
    return "".join(
        ascii(c)[1:-1] if c not in "\n\t" and unicodedata.category(c) == "Cc" else c for c in text
    )


def _words(text: str, width: int) -> str:
    line = " ".join(_clean(text).split())
    return line if len(line) <= width else line[: width - 1] + "…"


def list_table(found: Sequence[Exchange]) -> str:
    """Exchanges, one a line, as wide as the terminal is."""
    rows = [("time (UTC)", "key", "run", "teacher", "path", "tokens", "prompt", "answer")]
    room = max(shutil.get_terminal_size((100, 24)).columns - 90, 48)
    for exchange in found:
        prompt, completion = tokens(exchange)
        rows.append(
            (
                exchange.time[:19].replace("T", " "), exchange.key[:8], _words(exchange.run, 16) or "–",
                _words(model_name(exchange), 20), exchange.path, f"{prompt}+{completion}",
                _words(row_prompt(exchange), room * 3 // 5),
                _words(answered_text(exchange), room * 2 // 5),
            )
        )  # fmt: skip
    return aligned(rows)


def shown(exchange: Exchange) -> Iterator[str]:
    """An exchange as a person reads it."""
    prompt, completion = tokens(exchange)
    took = "" if exchange.seconds is None else f", {exchange.seconds:.2f} s"
    yield f"key      {exchange.key}"
    yield f"time     {exchange.time}{took}"
    yield f"run      {_clean(exchange.run) or '–'}"
    yield f"teacher  {_clean(json.dumps(dict(exchange.teacher), ensure_ascii=False))}"
    yield f"path     {exchange.path}, sample {exchange.sample}"
    yield f"tokens   {prompt:,} prompt, {completion:,} completion"
    settings = {k: v for k, v in exchange.request.items() if k not in ("messages", "prompt")}
    yield f"settings {_clean(json.dumps(settings, ensure_ascii=False))}"
    for role, text in request_turns(exchange.request):
        yield f"\n--- {_clean(role)}\n{_clean(text)}"
    for name, text in answer_parts(exchange):
        yield f"\n=== {name}\n{_clean(text)}"
    rest = {k: v for k, v in exchange.response.items() if k not in ("choices", "usage")}
    choices = exchange.response.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        rest["finish_reason"] = choices[0].get("finish_reason")
        if choices[0].get("logprobs"):
            rest["logprobs"] = "see --json"
    yield f"\nresponse {_clean(json.dumps(rest, ensure_ascii=False))}"


def pruned_text(verb: str, pruned: Pruned) -> str:
    """What goes and what stays."""
    damaged = f" and {count(pruned.damaged, 'damaged line')}" if pruned.damaged else ""
    return (
        f"{count(pruned.exchanges, 'exchange')}{damaged} {verb} ({pruned.bytes / 1e6:,.1f} MB); "
        f"{pruned.kept:,} stay"
    )


def cost_table(runs: Sequence[RunCost]) -> str:
    """Runs, one a line, and their sum."""
    rows = [
        ("run", "teacher", "answers", "prompt tokens", "completion tokens", "cost", "first (UTC)",
         "last (UTC)", "answers/s")
    ]  # fmt: skip
    for run in runs:
        rows.append(
            (
                _words(run.run, 30) or "–", _words(run.teacher, 30), f"{run.exchanges:,}",
                f"{run.prompt_tokens:,}", f"{run.completion_tokens:,}", _dollars(run.cost_usd),
                run.first[:16].replace("T", " "), run.last[:16].replace("T", " "),
                "–" if run.rate is None else f"{run.rate:,.2f}",
            )
        )  # fmt: skip
    if len(runs) > 1:
        known = [run.cost_usd for run in runs if run.cost_usd is not None]
        rows.append(
            (
                "total", "", f"{sum(run.exchanges for run in runs):,}",
                f"{sum(run.prompt_tokens for run in runs):,}",
                f"{sum(run.completion_tokens for run in runs):,}",
                _dollars(sum(known) if known else None),
                "", "", "",
            )
        )  # fmt: skip
    return aligned(rows)


def _dollars(amount: float | None) -> str:
    return "–" if amount is None else f"${amount:,.4f}"
