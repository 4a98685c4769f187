"""Where a training set is from: the parts of its card on sources, prompt, teacher, filters, balance."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import filters
from curate.export_rows import CuratedSet, without_folders
from curate.generation import GENERATED
from curate.recipe_sharing import written_filters

#: Below this many, the sources of a set are listed each.
_SOURCES = 20


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""

    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(_cell(cell) for cell in cells) + " |"

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


def _cell(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def block(text: str, language: str = "text") -> str:
    """A text in a fence that nothing in it can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def teacher_name(facts: Mapping[str, Any]) -> str:
    """The teacher's name as it may be shown."""
    return f"`{without_folders(str(facts['stages']['labeled'].get('teacher', 'a teacher')))}`"


def sources(curated: CuratedSet) -> str:
    """How many train rows are from where, and how many a teacher wrote."""
    train = curated.splits["train"]
    counts = Counter(train["source"].to_pylist() if "source" in train.column_names else ())
    lines = [f"- `{source}`: {n:,} train rows" for source, n in counts.most_common(_SOURCES)]
    if len(counts) > _SOURCES:
        lines.append(f"- and {len(counts) - _SOURCES} sources more")
    data = curated.facts["recipe"].get("data", {})
    if data.get("test"):
        lines.append(f"- test rows: `{without_folders(str(data['test']))}`")
    else:
        share = data.get("test_fraction")
        grouped = " by group" if data.get("group") else ""
        lines.append(f"- test rows: split off{grouped}, a share of {share}, if the source has none")
    written = curated.facts["stages"]["curated"].get("generated")
    of_set = counts.get(GENERATED, 0) / max(train.num_rows, 1)
    if written:
        lines.append(
            f"- rows that a teacher wrote: {written['rows']:,}, of which {written['kept']:,} were kept, "
            f"{of_set:.1%} of the train rows (their `source` is `{GENERATED}`)"
        )
    else:
        lines.append("- rows that a teacher wrote: none")
    return "\n".join(lines)


def task_and_prompt(recipe: Mapping[str, Any]) -> str:
    """The words that the teacher was asked in."""
    task, teacher = recipe["task"], recipe["teacher"]
    shown = len(task.get("demonstrations") or ())
    chosen = teacher.get("demonstrations") or {}
    written = chosen.get("written") or 0
    pool = f"{shown} from the recipe" + (f" and up to {written}" if written else "")
    if written:
        pool += " train rows explained by the teacher, to which their gold was shown for that"
    how = chosen.get("choose", "fixed")
    each = "all are shown with every row"
    if how != "fixed":
        each = f"{chosen.get('shots')} are shown with a row, chosen as {how} to it"
        each = each.replace("random to it", "at random")
        each = each.replace("similar to it", "the most similar to it")
    answers = "free text"
    if task.get("labels"):
        answers = ", ".join(f"`{label}`" for label in task["labels"])
    elif task.get("choices"):
        answers = f"each row brings its own, in the column `{task['choices']}`"
    none = not shown and not written
    return "\n\n".join(
        [
            "The instruction:",
            block(str(task["instruction"])),
            "The template that renders a row's `input`:",
            block(str(task.get("template", ""))),
            f"Answers allowed: {answers}.",
            "Demonstrations: " + ("none." if none else f"{pool}; {each}."),
        ]
    )


def _asked_how(teacher: Mapping[str, Any]) -> Iterator[str]:
    engine = teacher.get("engine")
    yield f"- Engine: {engine}"
    for key, words in (
        ("model", "Model"), ("mode", "Asked for"), ("probabilities", "Probabilities from"),
        ("samples", "Samples"), ("temperature", "Temperature"), ("calibration", "Calibration"),
    ):  # fmt: skip
        if teacher.get(key) is not None:
            yield f"- {words}: {without_folders(str(teacher[key]))}"
    members = [m["teacher"] for m in teacher.get("members") or ()]
    members += [teacher[key] for key in ("cheap", "dear") if teacher.get(key)]
    for member in members:
        name = member.get("model") or member.get("name")
        yield f"- One of its teachers: {without_folders(str(name))} ({member.get('engine')})"


def teacher_and_cost(curated: CuratedSet) -> str:
    """Who labelled, how, and what that took."""
    facts, asked = curated.facts, curated.asked
    info = facts["stages"]["labeled"]
    lines = [f"- Teacher: {teacher_name(facts)}", *_asked_how(facts["recipe"]["teacher"])]
    lines.append(f"- Rows labelled, test rows included: {asked['labelled']:,} of {asked['rows']:,}")
    errors = ", ".join(f"{n:,} {name}" for name, n in (info.get("errors") or {}).items())
    if errors:
        lines.append(f"- Rows without a label, by error: {errors}")
    if asked["prompt_tokens"] is not None:
        lines.append(
            f"- Tokens of all these answers: {asked['prompt_tokens']:,} prompt, "
            f"{asked['completion_tokens'] or 0:,} completion"
        )
    cost = asked["cost_usd"]
    lines.append(
        "- Cost of all these answers: "
        + (f"{cost:,.4f} US dollars" if cost is not None else "not known, the recipe has no prices")
    )
    if "asked" in info:
        spent = info.get("cost_usd")
        lines.append(
            f"- Of the answers, {info['asked']:,} were asked for in this run and "
            f"{info.get('from_store', 0):,} taken from the store of earlier ones, unpaid"
            + (f"; this run paid {spent:,.4f} US dollars" if spent is not None else "")
        )
    return "\n".join(lines)


def filters_in_order(curated: CuratedSet) -> str:
    """Every filter with its settings and counts, conflicts, reviews and the policy hash."""
    facts = curated.facts
    info = facts["stages"]["curated"]
    dropped, left = info.get("dropped", {}), {}
    for step in facts.get("funnel", ()):
        left[step["stage"].removeprefix("after ")] = step["rows"]
    steps: list[list[Any]] = [["(read)", "", "", left.get("train rows read", "")]]
    if "unlabelled" in dropped or "labelled" in left:
        count = dropped.get("unlabelled", 0)
        steps.append(["unlabelled", "no answer could be read", count, left.get("labelled", "")])
    if "review" in dropped:
        steps.append(["review", "a person's verdict", dropped["review"], left.get("review", "")])
    for name, settings in _in_order(facts["recipe"]):
        steps.append([name, settings, dropped.get(name, 0), left.get(name, "")])
    reviews = ", ".join(f"{n:,} {verdict}" for verdict, n in curated.reviewed.items())
    policy = info.get("policy")
    return "\n\n".join(
        [
            "In this order; the first filter that drops a row is named as its reason.",
            table(["filter", "settings", "dropped", "left"], steps),
            f"- Conflicts (alike texts with different labels, both kept): {info.get('conflicts', 0):,}\n"
            f"- Verdicts by people: {reviews or 'none'}\n"
            f"- Policy hash of filters and settings: `{policy or 'not recorded'}`",
        ]
    )


def _in_order(recipe: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each filter's name and all its settings, defaults included."""
    for name, written in written_filters(recipe):
        told = dict(written)
        kind = filters.FILTERS.get(name)
        if kind is not None:
            told = {f.name: f.default for f in dataclasses.fields(kind) if f.init} | told
        shown = (
            f"{key} {_setting(value)}"
            for key, value in told.items()
            if value not in (None, dataclasses.MISSING) and key != "reason"
        )
        yield name, ", ".join(shown)


def _setting(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return without_folders(str(value))


def balance_of(facts: Mapping[str, Any]) -> str:
    """Labels before and after the filters."""
    balance = facts.get("balance") or {}
    before, after = balance.get("before", {}), balance.get("after", {})
    if len(before) > 50:
        return f"{len(before):,} different answers before the filters, {len(after):,} after."
    sums = max(sum(before.values()), 1), max(sum(after.values()), 1)
    rows = [
        [f"`{label}`", f"{n:,} ({n / sums[0]:.1%})", f"{m:,} ({m / sums[1]:.1%})"]
        for label, n, m in ((label, n, after.get(label, 0)) for label, n in before.items())
    ]
    return table(["label", "labelled rows", "kept rows"], rows) + (
        "\n\nRows are counted once, whatever their weight and copies."
    )
