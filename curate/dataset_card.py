"""The dataset card: a README.md that says what a training set is made of, how, and what it is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from curate.card_limits import limits
from curate.card_origins import (
    balance_of,
    block,
    filters_in_order,
    sources,
    table,
    task_and_prompt,
    teacher_and_cost,
    teacher_name,
)
from curate.export_formats import Written
from curate.export_rows import CuratedSet
from curate.recipe_sharing import shareable_recipe

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_card(curated: CuratedSet, written: Written, form: str) -> str:
    """A dataset card: YAML front matter as the Hub reads it, then Markdown.

    Everything in it is read off the run; what a run does not know (licences, the language) is left to
    be filled in and marked.

    Args:
        curated: The set.
        written: What was written of it.
        form: ``parquet``, ``jsonl``, ``chat`` or ``paper``.
    """
    facts = curated.facts
    parts = [
        _front_matter(curated, written, form),
        f"# {facts['name']}",
        _opening(curated, written),
        "## Rows\n\n" + _rows(curated, written, form),
        "## Sources\n\n" + sources(curated),
        "## Task and prompt\n\n" + task_and_prompt(facts["recipe"]),
        "## Teacher and cost\n\n" + teacher_and_cost(curated),
        "## Filters\n\n" + filters_in_order(curated),
        "## Balance\n\n" + balance_of(facts),
        "## Results on test rows\n\n" + _results(facts),
        "## Known limits\n\n" + "\n".join(f"- {line}" for line in limits(curated, written)),
        "## How to make it again\n\n" + _again(facts),
        "## Licences\n\n"
        "**To be filled in by whoever publishes this set.** Nothing here states a licence. Check, and "
        "name:\n\n"
        "- the licence of each source above: …\n"
        "- the terms of the teacher (some providers restrict training on their output): …\n"
        "- the licence of this set, here and as `license:` in the front matter: …",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(curated: CuratedSet, written: Written, form: str) -> str:
    facts = curated.facts
    task = facts["recipe"]["task"]
    fields: dict[str, Any] = {"pretty_name": str(facts["name"])}
    if task.get("labels"):
        fields["task_categories"] = ["text-classification"]
    elif task.get("choices"):
        fields["task_categories"] = ["multiple-choice"]
    total = sum(written.rows.values())
    size = next((name for most, name in _SIZES if total < most), "n>1M")
    fields |= {"size_categories": [size], "tags": ["distillation", "curate-distill"]}
    if form != "paper":
        files = [{"split": split, "path": f"data/{split}*"} for split in written.rows]
        fields["configs"] = [{"config_name": "default", "data_files": files}]
        if written.features is not None:
            fields["dataset_info"] = {"features": written.features}
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    return f"---\n# license: fill in before publishing, such as cc-by-4.0\n{text}---"


def _opening(curated: CuratedSet, written: Written) -> str:
    facts = curated.facts
    named = written.tables and "gold" in written.tables["train"].column_names
    kept = curated.splits["train"].num_rows
    read = facts["funnel"][0]["rows"] if facts.get("funnel") else kept
    return (
        f"A training set of {kept:,} rows, curated out of {read:,} with curate-distill "
        f"{facts.get('curate_version', '')}. Its labels are a machine's: {teacher_name(facts)} gave them, "
        "and filters chose among the rows."
        + (" People's labels, where there are any, are in `gold`." if named else "")
    )


_MEANING = {
    "id": "names the row",
    "input": "what teacher and student read, rendered by the template",
    "choices": "the answers allowed",
    "label": "the teacher's answer, in validation and test rows too",
    "rationale": "why, in the teacher's words",
    "label_probs": "the teacher's probabilities, in the order of `choices`",
    "label_source": "where the probabilities come from; `review` where a person gave the label",
    "confidence": "probability of `label`, calibrated where that was possible",
    "gold": "the human label, or a list of them, each right; null without one; judge by it in test rows",
    "group": "rows of one group are in one split",
    "source": "where the row comes from",
    "cluster": "number of its cluster by meaning, the largest being 0; train rows only",
    "weight": "weight in the loss",
    "copies": "how often the row is to be repeated in training",
    "messages": "system, user and assistant in order",
}


def _rows(curated: CuratedSet, written: Written, form: str) -> str:
    blocks = [table(["split", "rows"], list(written.rows.items()))]
    if form != "paper":
        blocks.append(
            "```python\nfrom datasets import load_dataset\n\n"
            'rows = load_dataset("path/to/this/folder")  # or OWNER/NAME, if it was uploaded\n```'
        )
    if written.reading:
        blocks.append(written.reading)
    names = list(written.tables["train"].column_names) if written.tables else []
    known = [[f"`{name}`", _MEANING[name]] for name in names if name in _MEANING]
    if known:
        blocks.append(table(["column", ""], known))
    if len(known) < len(names):
        more = ", ".join(f"`{name}`" for name in names if name not in _MEANING)
        blocks.append(f"Further columns, as the run wrote or was given them: {more}.")
    return "\n\n".join(blocks)


def _results(facts: Mapping[str, Any]) -> str:
    metrics = facts.get("metrics") or {}
    if not metrics:
        return "No student was trained and judged on this set in this run."
    rows = []
    for system, found in metrics.items():
        cells = [system]
        for name in ("accuracy", "macro_f1"):
            each = found.get(name) or {}
            missing = each.get("value") is None
            cells.append(
                "–" if missing else f"{each['value']:.3f} ({each['low']:.3f} to {each['high']:.3f})"
            )
        rows.append([*cells, found.get("n", "")])
    by_people = facts["stages"].get("predictions", {}).get("reference", "gold") == "gold"
    against = "people's labels" if by_people else "the teacher's labels: agreement, not correctness"
    return (
        table(["system", "accuracy", "macro-F1", "rows"], rows)
        + f"\n\nAgainst {against}; 95 % intervals in brackets. {facts.get('verdict', '')}".rstrip()
    )


def _again(facts: Mapping[str, Any]) -> str:
    text, changed = shareable_recipe(facts["recipe"])
    blocks = [
        f"With curate-distill {facts.get('curate_version', '')}, this recipe as `recipe.yaml` and the "
        "sources beside it:",
        block(text, "yaml"),
        block("curate run recipe.yaml\ncurate export set runs/" + str(facts["name"]), "sh"),
        f"The recipe that ran has the hash `{facts.get('recipe_sha256', 'not recorded')}`.",
    ]
    if changed:
        blocks.append(
            "Changed against the recipe that ran:\n\n"
            + "\n".join(f"- `{line}`" for line in changed)
        )
    return "\n\n".join(blocks)
