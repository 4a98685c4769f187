"""What a training set is known not to be: the lines of a dataset card's "Known limits"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from curate.export_formats import Written
from curate.export_rows import CuratedSet, without_folders
from curate.recipe_sharing import written_filters

_CONTAMINATION = ("contamination", "semantic_contamination")
_RATIONALES = ("unsupported", "other_choice", "restatement", "copied", "arithmetic", "judge")


def limits(curated: CuratedSet, written: Written) -> Iterator[str]:
    """Each limit in a sentence or two."""
    facts = curated.facts
    names = {name for name, _ in written_filters(facts["recipe"])}
    dropped = facts["stages"]["curated"].get("dropped", {})
    yield _accuracy(facts)
    yield from _train_accuracy(curated)
    yield _noise(names, dropped)
    yield _contamination(names, dropped)
    if any(curated.splits["train"]["rationale"].to_pylist() if _has(curated, "rationale") else ()):
        checked = sorted(names & {*_RATIONALES})
        yield "Rationales are the teacher's account of its answers. " + (
            f"They were held against: {', '.join(checked)}."
            if checked
            else "No filter looked at them."
        )
    yield _privacy(facts["recipe"], names)
    yield "The kind of text, the language and the time it stems from are those of its sources."
    yield from written.warnings
    for said in (*facts["stages"]["curated"].get("warnings", ()), *(facts.get("notes") or ())):
        yield without_folders(" ".join(str(said).split()))


def _has(curated: CuratedSet, column: str) -> bool:
    return column in curated.splits["train"].column_names


def _accuracy(facts: Mapping[str, Any]) -> str:
    found = (facts.get("metrics") or {}).get("teacher", {}).get("accuracy") or {}
    reference = facts["stages"].get("predictions", {}).get("reference", "gold")
    if found.get("value") is None or reference != "gold":
        return "How often the teacher is right is not known: no test row with a human label was judged."
    return (
        f"The teacher is right in {found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%}) of the "
        "test rows that people labelled, before any filter: expect wrong labels among the train rows too."
    )


def _train_accuracy(curated: CuratedSet) -> Iterator[str]:
    """What people's labels of train rows, which no filter sees, say of those that were kept."""
    task = curated.facts["recipe"]["task"]
    closed = task.get("labels") or task.get("choices")
    train = curated.splits["train"]
    if not closed or "gold" not in train.column_names:
        return
    pairs = zip(train["label"].to_pylist(), train["gold"].to_pylist(), strict=True)
    known = [(label, gold) for label, gold in pairs if gold is not None]
    if known:
        right = sum(
            label in gold if isinstance(gold, list) else label == gold for label, gold in known
        )
        yield (
            f"Of the {len(known):,} kept train rows that people labelled, {right / len(known):.1%} have the "
            "people's label; the filters did not see it."
        )


def _noise(names: set[str], dropped: Mapping[str, int]) -> str:
    if "label_noise" not in names:
        return "Wrong labels were not searched for (no filter `label_noise`)."
    return (
        f"`label_noise` suspected and dropped {dropped.get('label_noise', 0):,} labels; it finds a part of "
        "the wrong ones, and drops some right ones."
    )


def _contamination(names: set[str], dropped: Mapping[str, int]) -> str:
    ran = [name for name in _CONTAMINATION if name in names]
    if not ran:
        return (
            "Train rows were not held against test and validation rows for shared passages (no filter "
            "`contamination`); only equal texts are kept apart when data is read."
        )
    counts = ", ".join(f"`{name}` dropped {dropped.get(name, 0):,}" for name in ran)
    absent = (
        ""
        if len(ran) == 2
        else f" The other check, `{_CONTAMINATION['contamination' in ran]}`, was not run."
    )
    return f"Train rows were held against test and validation rows: {counts}.{absent}"


def _privacy(recipe: Mapping[str, Any], names: set[str]) -> str:
    searched = (
        "the filter `personal_data` looked for some of it" if "personal_data" in names else
        "no filter looked for it"
    )  # fmt: skip
    if recipe.get("privacy") is not None:
        return (
            "Personal data was replaced in what was sent to the teacher, and in nothing else: the texts here "
            f"are the sources' own and may hold personal data ({searched})."
        )
    return f"The texts are the sources' own and may hold personal data ({searched})."
