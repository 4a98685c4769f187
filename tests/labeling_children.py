"""Labeling runs in processes that can be killed, without the seconds that imports take.

One process imports everything and then forks a child for each run that it is told of by a line of JSON on
its standard input; it answers each line by one line.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[1]


@dataclass
class Children:
    """A test's handle on the process that forks."""

    process: subprocess.Popen[str]

    def _say(self, **order: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, folder: Path, base_url: str, **how: Any) -> int:
        """Begin a run that labels ``how["rows"]`` buyers; its number as a process.

        Its journal and its result are written into ``folder`` under ``how["name"]``. With
        ``how["held"]`` it waits for :meth:`go`.
        """
        how = {"name": "run", "rows": 100, "first": 0, "concurrency": 16, **how}
        (folder / f"{how['name']}.told").unlink(missing_ok=True)
        (folder / f"{how['name']}.json").unlink(missing_ok=True)
        number: int = self._say(folder=str(folder), base_url=base_url, **how)
        return number

    def go(self, *numbers: int) -> None:
        """Let runs begin that were held: by now it is settled when they are killed."""
        for number in numbers:
            self._say(go=number)

    def wait(self, number: int) -> int:
        """Wait for its end; 0, or minus the signal that ended it."""
        ended: int = self._say(wait=number)
        return ended


@contextmanager
def children() -> Iterator[Children]:
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        yield Children(process)
    finally:
        process.communicate()


def told(folder: Path, name: str = "run") -> int:
    """Answers that the run had told of, by the last complete line of its journal."""
    try:
        lines = (folder / f"{name}.told").read_text().split("\n")[:-1]
    except FileNotFoundError:
        return 0
    return int(lines[-1]) if lines else 0


def result(folder: Path, name: str = "run") -> dict[str, Any]:
    """Labels and errors of a run that ended by itself."""
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def _label(order: dict[str, Any]) -> None:
    import pandas as pd

    from labelers import Budget, Limits, OpenAICompatible, Prices, Task, TeacherError, label

    folder, name = Path(order["folder"]), order["name"]
    words = ("dull", "great", "great")
    wanted = range(order["first"], order["first"] + order["rows"])
    log = os.open(folder / f"{name}.told", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    prices = order.get("prices")
    budget = order.get("budget")
    try:
        rows = label(
            pd.DataFrame({"text": [f"Buyer {i:04d} says it is {words[i % 3]}." for i in wanted]}),
            Task(
                instruction="Decide whether a product review is positive or negative.",
                template="Review: {{ text }}",
                labels=("positive", "negative"),
            ),
            OpenAICompatible(
                model="teacher-1", base_url=order["base_url"], concurrency=order["concurrency"],
                prices=Prices(*prices) if prices else None, read_timeout=order.get("timeout", 10.0),
            ),
            mode=order.get("mode", "cot"),
            store=folder / "store",
            run=order.get("run", ""),
            budget=Budget(**budget) if budget else None,
            limits=Limits(backoff=0.002, longest_backoff=0.02),
            max_tokens=order.get("max_tokens", 256),
            on_progress=lambda progress: os.write(log, b"%d\n" % progress.asked),
        )  # fmt: skip
        story = {"labels": rows["label"][:], "errors": rows["error"][:]}
    except TeacherError as error:
        story = {"stopped": str(error)}
    (folder / f"{name}.json").write_text(json.dumps(story))


def _fork() -> None:
    import datasets  # noqa: F401  what a run needs, read once for all
    import pandas as pd  # noqa: F401

    import labelers.labeling  # noqa: F401

    gates: dict[int, int] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "go" in order:
            os.write(gates[order["go"]], b".")
            os.close(gates.pop(order["go"]))
            print(0, flush=True)
            continue
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        gate, opener = os.pipe()
        child = os.fork()
        if not child:
            os.close(opener)
            if order.pop("held", False) and not os.read(gate, 1):
                os._exit(1)  # The test has ended without letting it go.
            try:
                _label(order)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        os.close(gate)
        if order.get("held"):
            gates[child] = opener
        else:
            os.close(opener)
        print(child, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(REPO))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _fork()
