"""Say which rows change sides between two results."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import pandas as pd

from filters.explanations import as_text
from filters.results import Result


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Which rows change sides from one result to another; `str` of it is a short text.

    Attributes:
        rows: One line per row that changed sides, by id: `id`, `change` ("dropped": kept before and
            not after; "restored": the other way; "added", "gone": in one result only), `filter` (the
            one that drops it, in whichever result that is; null for a kept row added or gone),
            `before`, `after` (reasons, null for kept) and `input`, as far as it is there.
        counts: {change: {filter: rows}}.
        before: How many rows were kept.
        after: How many are.
    """

    rows: pd.DataFrame
    counts: dict[str, dict[str, int]]
    before: int
    after: int

    def __str__(self) -> str:
        lines = [f"{self.before} rows kept before, {self.after} after"]
        for change, filters in self.counts.items():
            for name, rows in filters.items():
                by = f" ({name})" if name else ""
                lines.append(f"{change}: {rows} {'row' if rows == 1 else 'rows'}{by}")
        shown = self.rows.head(20).to_dict("records")
        for row in shown:
            text = textwrap.shorten(str(row.get("input", "")), 50, placeholder="…")
            lines.append(
                f"  {row['change']:<8}  {row['id']}  {row['filter'] or '-'}  {text}".rstrip()
            )
        if len(self.rows) > len(shown):
            lines.append(f"  and {len(self.rows) - len(shown)} more")
        return "\n".join(lines)


def diff(before: Result, after: Result) -> Difference:
    """Compare two results: which rows changed sides, and by which filter.

    Args:
        before: One result.
        after: Another, of the same rows or of others with some of the same ids.
    """
    columns = ["id", "keep", "reason", "input"]
    frames = [
        one.frame[[name for name in columns if name in one.frame.columns]]
        for one in (before, after)
    ]
    both = frames[0].merge(frames[1], on="id", how="outer", suffixes=("_before", "_after"))
    rows = []
    for row in both.to_dict("records"):
        was, now = row["keep_before"], row["keep_after"]
        if pd.isna(was) or pd.isna(now):
            change = "added" if pd.isna(was) else "gone"
        elif bool(was) == bool(now):
            continue
        else:
            change = "dropped" if was else "restored"
        reasons = as_text(row["reason_before"]), as_text(row["reason_after"])
        text = as_text(row.get("input_after")) or as_text(row.get("input_before"))
        rows.append(
            {
                "id": row["id"], "change": change, "filter": reasons[1] or reasons[0],
                "before": reasons[0], "after": reasons[1], "input": text,
            }
        )  # fmt: skip
    names = ["id", "change", "filter", "before", "after", "input"]
    changed = pd.DataFrame(rows, columns=names, dtype=object).sort_values("id", ignore_index=True)
    counts: dict[str, dict[str, int]] = {}
    for one in changed.to_dict("records"):
        by = counts.setdefault(str(one["change"]), {})
        by[one["filter"] or ""] = by.get(one["filter"] or "", 0) + 1
    return Difference(
        rows=changed,
        counts={change: dict(sorted(counts[change].items())) for change in sorted(counts)},
        before=int(before.frame["keep"].sum()),
        after=int(after.frame["keep"].sum()),
    )
