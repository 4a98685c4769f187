"""The rows that the report shows: what was dropped and why, its twins, and the disagreements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup, escape

from curate.reports.files import RunFiles, read_texts
from curate.reports.meanings import MEANINGS
from curate.reports.results import Answers
from curate.reports.texts import as_number, as_percent, clip, mark_differences

__all__ = [
    "Case",
    "Disagreements",
    "Dropped",
    "Pair",
    "count_agreement",
    "list_conflicts",
    "list_disagreements",
    "list_dropped",
]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One text of a pair as safe HTML, under the row's id, label, confidence and fate."""

    title: str
    text: Markup


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A row and, where a filter compared it with another, its twin."""

    row: Side
    twin: Side | None
    fact: str  # score and threshold in words


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """What one filter dropped: how many rows, and some of them from all over its scores."""

    reason: str
    count: int
    meaning: str
    pairs: list[Pair]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A test row on which someone was wrong."""

    text: str
    gold: str
    teacher: str
    teacher_right: bool | None
    student: str
    student_right: bool
    rationale: str


@dataclass(frozen=True, kw_only=True)
class Disagreements:
    """One kind of disagreement: its rows in all, and the first of them by confidence."""

    title: str
    count: int
    cases: list[Case]


def list_dropped(files: RunFiles, most: int = 8) -> list[Dropped]:
    """Each reason for which rows were dropped, the most frequent first."""
    counts: dict[str, int] = files.stage("curated").get("dropped") or {}
    chosen: dict[str, pl.DataFrame] = {}
    for reason in counts:
        gone = files.curated.filter(pl.col("reason") == reason).select("id")
        edges = files.decisions.filter(pl.col("verdict") == "drop").join(gone, on="id", how="semi")
        # A later filter may have had its say about the same row: show the one that dropped it.
        named = edges.filter(pl.col("filter") == reason)
        edges = edges if named.is_empty() else named
        if edges.is_empty():
            missing = [pl.lit(None, edges.schema[name]).alias(name) for name in edges.columns[1:]]
            edges = gone.with_columns(missing)
        chosen[reason] = _spread(edges, 6 * most)
    pairs = _pair_up(files, chosen, most)
    return [
        Dropped(reason=reason, count=n, meaning=MEANINGS.get(reason, ""), pairs=pairs[reason])
        for reason, n in sorted(counts.items(), key=lambda item: -item[1])
    ]


def list_conflicts(files: RunFiles, most: int = 8) -> tuple[list[Pair], int]:
    """Rows whose twins carry another label, and how many such pairs there are.

    They are reported, not deleted as copies: which of the two labels is right is not known.
    """
    edges = files.decisions.filter(pl.col("verdict") == "conflict")
    edges = edges.sort("score", descending=True, nulls_last=True, maintain_order=True)
    both = pl.concat_list("id", "related_id").list.sort().list.join(" ", ignore_nulls=True)
    once = edges.unique(both, keep="first", maintain_order=True)
    pairs = _pair_up(files, {"conflict": once.head(6 * most)}, most)["conflict"]
    return pairs, once.height or files.stage("curated").get("conflicts") or 0


def _spread(edges: pl.DataFrame, most: int) -> pl.DataFrame:
    """One edge for each row, the strongest, by turns a close call and one from among the others.

    Close calls are those whose score is nearest to the threshold. The others are taken so that
    the first few of them cover the whole range of scores: its far end, its middle, its quarters.
    """
    strongest = edges.sort("score", descending=True, nulls_last=True, maintain_order=True)
    once = strongest.unique("id", keep="first", maintain_order=True)
    distance = (pl.col("score") - pl.col("threshold")).abs()
    once = once.sort(distance, nulls_last=True, maintain_order=True)
    others = [round(part * (once.height - 1)) for part in _halves(most)]
    turns = [place for pair in zip(range(once.height), others, strict=False) for place in pair]
    return once[list(dict.fromkeys(turns))[:most]]


def _halves(most: int) -> list[float]:
    """1, 1/2, 1/4, 3/4, 1/8, ...: so many points of the unit interval, each filling a gap."""
    points, step = [1.0], 0.5
    while len(points) < most:
        points += [step * place for place in range(1, round(1 / step), 2)]
        step /= 2
    return points[:most]


def _pair_up(files: RunFiles, chosen: dict[str, pl.DataFrame], most: int) -> dict[str, list[Pair]]:
    """Turn edges into pairs of texts, leaving out pairs whose texts were shown already."""
    ids = {one for edges in chosen.values() for name in ("id", "related_id") for one in edges[name]}
    ids.discard(None)
    texts = read_texts(files, ids)
    wanted = pl.DataFrame({"id": list(ids)}, schema={"id": pl.String})
    rows: dict[str, dict[str, Any]] = {}
    for table in (files.labeled, files.curated):
        for row in table.join(wanted, on="id", how="semi").iter_rows(named=True):
            rows.setdefault(row["id"], {}).update(row)
    pairs: dict[str, list[Pair]] = {}
    for reason, edges in chosen.items():
        seen: set[tuple[str, str | None]] = set()
        pairs[reason] = []
        for edge in edges.iter_rows(named=True):
            twin = edge["related_id"]
            shown = (texts.get(edge["id"], ""), texts.get(twin) if twin else None)
            if len(pairs[reason]) == most or shown in seen or not shown[0]:
                continue
            seen.add(shown)
            pairs[reason].append(_pair(edge, shown, rows))
    return pairs


def _pair(
    edge: dict[str, Any], texts: tuple[str, str | None], rows: dict[str, dict[str, Any]]
) -> Pair:
    """One edge as it is shown: the texts side by side, their differing words marked."""
    text, twin_text = texts
    row, twin_id = rows.get(edge["id"], {}), edge["related_id"]
    score, threshold = edge["score"], edge["threshold"]
    facts = []
    if score is not None:
        facts.append(f"score {as_number(score, 3)}")
    if threshold is not None:
        facts.append(f"threshold {as_number(threshold, 3)}")
    twin = None
    marked = escape(clip(text))
    if twin_text is not None:
        other = Markup('<span class="left-out">the same text</span>')
        if twin_text != text:
            marked, other = mark_differences(text, twin_text)
        found = rows.get(twin_id, {})
        fate = _fate(found, edge["related_set"])
        title = f"{twin_id} · {_label_said(found)} · {fate}"
        twin = Side(title=title, text=other)
    elif twin_id is not None:
        facts.append(f"twin {twin_id}, whose text is in no file")
    title = f"{edge['id']} · {_label_said(row)}"
    if edge["verdict"] == "conflict":
        title += f" · {_fate(row)}"
    return Pair(row=Side(title=title, text=marked), twin=twin, fact=", ".join(facts))


def _fate(row: dict[str, Any], other_set: str | None = None) -> str:
    """What became of a row, or the set that it is in where it is no train row."""
    if row.get("keep") is None:
        name = other_set or row.get("split")
        return "not a train row" if name in (None, "train") else f"{name} row"
    fate = "kept" if row["keep"] else f"dropped ({row['reason'] or 'no reason given'})"
    return f"{fate}, reviewed: {row['review']}" if row.get("review") else fate


def _label_said(row: dict[str, Any]) -> str:
    if row.get("label") is None:
        return "no label"
    return _with_confidence(clip(row["label"], 80), row.get("confidence"))


def _with_confidence(answer: str, confidence: float | None) -> str:
    if confidence is None or not 0 <= confidence <= 1:
        return answer
    return f"{answer}, {as_percent(confidence, 0)} sure"


def list_disagreements(files: RunFiles, answers: Answers, most: int = 12) -> list[Disagreements]:
    """The test rows where the student or its teacher is wrong, the student's surest first.

    Each row stands in one list only; where the teacher's answers are not known there is one list.
    """
    said: dict[str, dict[str, dict[str, Any]]] = {}
    for row in files.predictions.iter_rows(named=True):
        if row["system"] in {"teacher", "student"}:
            said.setdefault(row["id"], {})[row["system"]] = row
    groups: dict[str, list[dict[str, dict[str, Any]]]] = {}
    for one, by_system in said.items():
        student, teacher = answers.get((one, "student")), answers.get((one, "teacher"))
        if student is None or (student and teacher is not False):
            continue
        title = "Student wrong" if teacher is None else _KINDS[student, teacher]
        groups.setdefault(title, []).append(by_system)
    order = [*_KINDS.values(), "Student wrong"]
    shown = {}
    for title in sorted(groups, key=order.index):
        groups[title].sort(key=lambda rows: -(rows["student"]["confidence"] or 0.0))
        shown[title] = groups[title][:most]
    ids = [rows["student"]["id"] for found in shown.values() for rows in found]
    texts, rationales = read_texts(files, ids), _rationales(files, ids)
    return [
        Disagreements(
            title=title,
            count=len(groups[title]),
            cases=[_case(rows, texts, rationales, answers) for rows in found],
        )
        for title, found in shown.items()
    ]


def count_agreement(answers: Answers) -> str:
    """In words, on how many test rows teacher and student are right, both or one of them."""
    both = [one for one, system in answers if system == "student" and (one, "teacher") in answers]
    if not both:
        return ""
    counts = Counter((answers[one, "student"], answers[one, "teacher"]) for one in both)
    return (
        f"Of {len(both):,} test rows both are right on {counts[True, True]:,}, only the teacher on "
        f"{counts[False, True]:,}, only the student on {counts[True, False]:,}, and neither on "
        f"{counts[False, False]:,}."
    )


# (student right, teacher right) -> the list's title
_KINDS = {
    (False, True): "Student wrong, teacher right",
    (False, False): "Both wrong",
    (True, False): "Teacher wrong, student right",
}


def _rationales(files: RunFiles, ids: Sequence[str]) -> dict[str, str]:
    wanted = pl.DataFrame({"id": list(ids)}, schema={"id": pl.String})
    found = files.labeled.join(wanted, on="id", how="semi").select("id", "rationale").drop_nulls()
    return dict(found.iter_rows())


def _case(
    rows: dict[str, dict[str, Any]],
    texts: dict[str, str],
    rationales: dict[str, str],
    answers: Answers,
) -> Case:
    student, teacher = rows["student"], rows.get("teacher")
    one, gold = student["id"], student["gold"]

    def answer(row: dict[str, Any] | None) -> str:
        if row is None or row["prediction"] is None:
            return "no answer"
        return _with_confidence(clip(row["prediction"], 200), row["confidence"])

    references = [str(g) for g in gold] if isinstance(gold, list) else [str(gold)]
    return Case(
        text=clip(texts.get(one)),
        gold=clip(" / ".join(references), 200),
        teacher=answer(teacher) if teacher else "",
        teacher_right=answers.get((one, "teacher")),
        student=answer(student),
        student_right=answers[one, "student"],
        rationale=clip(rationales[one], 400) if one in rationales else "",
    )
