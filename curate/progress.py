"""Shows how far a run is: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

#: Off a terminal, a line about work under way is printed this often at most (seconds).
_EVERY = 10.0

_TITLES = {
    "examples": "Reading the data",
    "generated": "Writing new rows",
    "labeled": "Labeling",
    "curated": "Filtering",
    "student": "Training the student",
    "predictions": "Evaluating on the test rows",
}
_WORK = {
    "label": "labels",
    "rationale": "rationales",
    "generate": "new rows",
    "embed": "embedding",
    "white_box": "white-box teacher",
    "train": "training",
    "predict": "prediction",
}


class ProgressDisplay:
    """Receives a run's events and shows them on standard error; a context manager.

    Args:
        stream: Where to write; standard error by default.
        quiet: Show nothing at all.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.live = not quiet and self.stream.isatty()
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._begun: dict[str, tuple[float, int]] = {}
        self._reached: dict[str, int] = {}
        self._printed: dict[str, float] = {}

    def __enter__(self) -> ProgressDisplay:
        if self.live:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._bars = Progress(
                TextColumn("  {task.description:<12}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[told]}"),
                console=Console(file=self.stream),
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def __call__(self, stage: str, event: Mapping[str, Any]) -> None:
        """Show one event of one stage."""
        if self.quiet:
            return
        if "state" in event:
            self._stage(stage, event)
        elif stage == "assets":
            total = event.get("total") or 0
            # What waits for another process, or has no size yet, has nothing to be drawn.
            if total:
                what = f"{event['phase']} {event['asset']}"
                self._work(what, event["bytes"], total, _megabytes)
        elif stage == "train":
            losses = f"loss {event['loss']:.3f}"
            self._work("training", event["step"], event["steps"], _steps, losses)
        elif stage == "filter":
            # Most filters take no time at all: a line each would say nothing.
            if self.live or event["done"] < event["total"]:
                self._work(event["stage"], event["done"], event["total"], _rows)
        else:
            name = event.get("phase", stage) if stage in ("label", "generate") else stage
            told = _teacher_words(event) if stage in ("label", "generate") else ""
            done = event.get("done", event.get("rows"))
            if done is not None and event.get("total"):
                self._work(_WORK.get(name, name), done, event["total"], _rows, told)

    def _stage(self, stage: str, event: Mapping[str, Any]) -> None:
        if event["state"] == "begun":
            self._say(f"{_TITLES.get(stage, stage)} …")
            return
        self._clear()
        done = "unchanged, not run again" if event.get("reused") else f"{event['seconds']:.1f} s"
        summary = stage_summary(stage, event)
        self._say(f"{_TITLES.get(stage, stage)}: {summary}{'; ' if summary else ''}{done}")
        for note in [*event.get("notes", []), *event.get("warnings", [])]:
            self._say(f"  note: {note}")

    def _work(self, name: str, done: int, total: int, unit: Any, told: str = "") -> None:
        now = time.monotonic()
        began, before = self._begun.setdefault(name, (now, done))
        if done < self._reached.get(name, 0):
            # The same work on something else, such as a second student: its own rate and lines.
            self._begun[name] = began, before = now, done
            self._printed.pop(name, None)
        self._reached[name] = done
        spent = now - began
        rate = (done - before) / spent if spent > 0 and done > before else 0.0
        left = (total - done) / rate if rate else None
        words = ", ".join(w for w in (unit(done, total, rate), told, _eta(left, done, total)) if w)
        if self._bars is not None:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total, told="")
            self._bars.update(self._tasks[name], completed=done, total=total, told=words)
        elif done >= total or now - self._printed.setdefault(name, now) >= _EVERY:
            if done >= total and self._printed.get(name) == -1.0:
                return
            self._printed[name] = -1.0 if done >= total else now
            self._say(f"  {name}: {words}")

    def _clear(self) -> None:
        if self._bars is not None:
            for task in self._tasks.values():
                self._bars.remove_task(task)
        self._tasks.clear()
        self._begun.clear()
        self._reached.clear()
        self._printed.clear()

    def _say(self, text: str) -> None:
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            self.stream.write(text + "\n")
            self.stream.flush()


def stage_summary(stage: str, info: Mapping[str, Any]) -> str:
    """What a finished stage did, in a few words."""
    if stage == "examples":
        return ", ".join(
            f"{n:,} {split} rows" for split, n in sorted(info["rows"].items(), reverse=True)
        )
    if stage == "generated":
        return (
            f"{info['accepted']:,} rows written, {info['requests']:,} answers asked or in the store"
        )
    if stage == "labeled":
        cost = f", {_dollars(info['cost_usd'])}" if info.get("cost_usd") is not None else ""
        failed = info["rows"] - info["labelled"]
        labelled = f"{info['labelled']:,} of {info['rows']:,} rows labelled" + (
            f" ({failed:,} with an error)" if failed else ""
        )
        if info.get("reused"):
            # The counts are those of the run that asked; this one asked nothing.
            return labelled
        return f"{labelled}, {info['asked']:,} answers asked, {info['from_store']:,} from the store{cost}"
    if stage == "curated":
        dropped = ", ".join(f"{name} {n:,}" for name, n in info["dropped"].items())
        return f"{info['kept']:,} rows kept" + (f"; dropped: {dropped}" if dropped else "")
    if stage == "student":
        return f"{info['rows']:,} rows, {info['steps']:,} steps, {info['objective']} on {info['target']}s"
    return ""


def _teacher_words(event: Mapping[str, Any]) -> str:
    words = [f"{event['prompt_tokens'] + event['completion_tokens']:,} tokens"]
    if event.get("cost_usd") is not None:
        words.append(_dollars(event["cost_usd"]))
    if event.get("reused"):
        words.append(f"{event['reused']:,} from the store")
    if event.get("failed"):
        words.append(f"{event['failed']:,} failed")
    if event.get("retries"):
        words.append(f"{event['retries']:,} retries")
    if event.get("paused"):
        words.append(f"waiting {event['paused']:,.0f} s, as the server asked")
    return ", ".join(words)


def _dollars(amount: float) -> str:
    """Two decimals, and of what they would show as nothing two digits."""
    return f"{amount:.2f} USD" if amount >= 0.1 or not amount else f"{amount:.2g} USD"


def _rows(done: int, total: int, rate: float) -> str:
    return f"{done:,} of {total:,} rows" + (f", {rate:,.1f} rows/s" if rate else "")


def _steps(done: int, total: int, rate: float) -> str:
    return f"step {done:,} of {total:,}" + (f", {rate:,.1f} steps/s" if rate else "")


def _megabytes(done: int, total: int, rate: float) -> str:
    return f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB"


def _eta(seconds: float | None, done: int, total: int) -> str:
    if seconds is None or done >= total:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} left"
