"""A blind comparison: a person judges answers of student and teacher without knowing whose is which."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.error_slices import wilson
from curate.exceptions import CurateError
from curate.run_folder import RunFolder
from curate.tables import is_null, read_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["JUDGEMENTS", "BlindResult", "read_blind_sample", "write_blind_sample"]

#: What the column ``better`` may hold.
JUDGEMENTS = ("1", "2", "both", "neither")
_KEY = "blind.json"
#: What came of the last sample that was read back.
RESULT = "judged.json"


@dataclass(frozen=True, kw_only=True)
class BlindResult:
    """What a person said of the two, on the rows that were judged.

    Attributes:
        system: Who is held against the teacher: ``student``, or another system.
        judged: How many rows were judged.
        student: Rows where only the student's answer was good.
        teacher: Rows where only the teacher's was.
        both: Rows where both were.
        neither: Rows where neither was.
        low: Lower end of the 95 % interval (Wilson) of the student's share of the rows where one was better.
        high: Its upper end; the two are 0 and 1 where no row had a better one.
        p: Two-sided p-value of the sign test that student and teacher are preferred as often.
        left: Rows of the sample that were not judged.
    """

    system: str
    judged: int
    student: int
    teacher: int
    both: int
    neither: int
    low: float
    high: float
    p: float
    left: int

    def __str__(self) -> str:
        """The result in a sentence or two."""
        decided = self.student + self.teacher
        said = (
            f"{self.judged} rows judged: the {self.system}'s answer is better on {self.student}, the "
            f"teacher's on {self.teacher}; both are good on {self.both}, neither on {self.neither}."
        )
        if decided:
            said += (
                f" Of the {decided} with a better one the {self.system} has {self.student / decided:.0%} "
                f"({self.low:.0%} to {self.high:.0%}; sign test p = {self.p:.3f}): "
                f"{'a difference is shown' if self.p < 0.05 else 'no difference is shown'}."
            )
        return said + (f" {self.left} rows are not judged yet." if self.left else "")


def write_blind_sample(
    run: RunFolder,
    rows: pd.DataFrame,
    file: Path,
    *,
    size: int = 50,
    seed: int = 0,
    system: str = "student",
) -> int:
    """Write rows on which student and teacher differ, in random order, sides changed at random.

    The file (CSV) has the columns ``id``, ``input``, ``answer_1``, ``answer_2`` and ``better``, which
    the person fills in. Which answer is whose stays in the run folder, in ``blind.json``.

    Args:
        run: The run.
        rows: From :func:`curate.error_rows.judged_rows`.
        file: Where to write; it must not be there yet.
        size: At most so many rows.
        seed: Draws rows and sides.
        system: Whose answers ``rows`` hold.

    Returns:
        How many rows were written.

    Raises:
        CurateError: If the file is there, or the two never differ.
    """
    import pandas as pd

    if file.suffix != ".csv":
        raise CurateError(f"{file}: a sample is a .csv file; name one with --blind")
    if file.exists():
        raise CurateError(
            f"{file} is there already and may hold judgements: name another file, or read it with "
            f"--judged {file}"
        )
    told = rows["prediction"].notna() & rows["teacher"].notna()
    pool = rows[told & (rows["prediction"] != rows["teacher"])]
    if not len(pool):
        raise CurateError(
            "student and teacher give the same answer on every row: nothing is to be judged"
        )
    known = _keys(run.path / _KEY)
    sample = str(1 + max((int(number) for number in known), default=0))
    draw = random.Random(f"{seed} {sample}")
    places = draw.sample(range(len(pool)), min(size, len(pool)))
    lines, first = [], {}
    for row in pool.iloc[places].to_dict("records"):
        answers = [row["prediction"], row["teacher"]]
        first[str(row["id"])] = student_first = draw.random() < 0.5
        if not student_first:
            answers.reverse()
        lines.append(
            {"id": row["id"], "input": row["input"], "answer_1": answers[0], "answer_2": answers[1],
             "better": "", "sample": sample}
        )  # fmt: skip
    known[sample] = {"system": system, "student_first": first}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(lines).to_csv(file, index=False)
    except OSError as error:
        raise CurateError(f"{file} cannot be written ({error.strerror or error})") from error
    run.write_text(_KEY, json.dumps(known, indent=1))
    return len(lines)


def _keys(path: Path) -> dict[str, Any]:
    """The keys of all samples of a run, by number."""
    try:
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CurateError(
            f"{path} says whose answer is whose and cannot be read ({error}): delete it, and write "
            "samples anew"
        ) from error
    return known


def read_blind_sample(run: RunFolder, file: Path) -> BlindResult:
    """Read a judged sample back, and keep the result in the run folder: `judged.json`.

    Raises:
        CurateError: If the key is missing, a row is not of the sample, or a judgement is not among
            `JUDGEMENTS`.
    """
    from scipy.stats import binomtest

    if not file.exists():
        raise CurateError(f"{file} is not there: give the file that --blind wrote")
    table = read_table(file)
    missing = {"id", "better", "sample"} - {*table.columns}
    if missing:
        raise CurateError(
            f"{file} has no column {sorted(missing)[0]!r}: give the file that --blind wrote"
        )
    numbers = {str(number).removesuffix(".0") for number in table["sample"]}
    known = _keys(run.path / _KEY)
    if len(numbers) != 1 or not numbers <= known.keys():
        raise CurateError(
            f"{file} is of the samples {', '.join(sorted(numbers))}; {run.path} knows "
            f"{', '.join(known) or 'none'}: judge one sample of this run at a time"
        )
    key = known[numbers.pop()]
    student_first = key["student_first"]
    counts = {"student": 0, "teacher": 0, "both": 0, "neither": 0}
    seen: set[str] = set()
    for line, row in enumerate(table.to_dict("records"), 2):
        judgement = _judgement(row["better"], f"{file}, line {line}")
        identifier = str(row["id"])
        if identifier not in student_first or identifier in seen:
            twice = identifier in seen
            raise CurateError(
                f"{file}, line {line}: the id {identifier!r} "
                f"{'stands there twice' if twice else 'is not of its sample'}"
            )
        seen.add(identifier)
        if judgement in ("1", "2"):
            own = (judgement == "1") == student_first[identifier]
            judgement = "student" if own else "teacher"
        if judgement:
            counts[judgement] += 1
    decided = counts["student"] + counts["teacher"]
    low, high = wilson(counts["student"], decided) if decided else (0.0, 1.0)
    judged = sum(counts.values())
    p = float(binomtest(counts["student"], decided).pvalue) if decided else 1.0
    left = len(student_first) - judged
    result = BlindResult(
        system=key["system"], judged=judged, **counts, low=low, high=high, p=p, left=left
    )
    run.write_text(RESULT, json.dumps({**asdict(result), "said": str(result)}, indent=1))
    return result


def _judgement(value: Any, place: str) -> str:
    said = "" if is_null(value) else str(value).strip().casefold().removesuffix(".0")
    if said and said not in JUDGEMENTS:
        raise CurateError(
            f"{place}: better is {value!r}; it may be {', '.join(JUDGEMENTS)}, or empty if not judged"
        )
    return said
