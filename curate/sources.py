"""Rows from any source, in the columns that everything else reads, checked before anything is paid."""

from __future__ import annotations

import difflib
import hashlib
import json
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.recipe import DataSection
from curate.tables import SUFFIXES, SourceError, is_null, read_table

if TYPE_CHECKING:
    import pandas as pd

    import labelers

#: Column names that stages write; data may not bring its own under these names.
RESERVED = frozenset(
    [
        "id",
        "input",
        "choices",
        "gold",
        "split",
        "group",
        "source",
        "label",
        "rationale",
        "label_probs",
        "label_source",
        "off_label_mass",
        "confidence",
        "votes",
        "agreement",
        "finish_reason",
        "teacher",
        "prompt_key",
        "prompt_tokens",
        "completion_tokens",
        "cost_usd",
        "error",
        "keep",
        "reason",
        "cluster",
        "weight",
        "copies",
        "review",
        "map_x",
        "map_y",
    ]
)


def load_examples(
    data: DataSection,
    task: labelers.Task,
    *,
    folder: Path,
    train: Any = None,
    test: Any = None,
    seed: int = 0,
    keep_columns: tuple[str, ...] = (),
) -> pd.DataFrame:
    """Read train and test rows into the house's columns, checked.

    Where no test source is named, the rows are split by the source's own ``split`` column, or else
    at random, whole groups to one side.

    Args:
        data: The recipe's section.
        task: Renders the inputs and says which labels are allowed.
        folder: Relative paths start here (the recipe's folder).
        train: Object in memory, in place of ``data.train``.
        test: Object in memory, in place of ``data.test``.
        seed: For the random split and for ``data.limit``.
        keep_columns: Reserved names that may stay, such as a column of recorded outputs.

    Returns:
        One row per example: id, input, choices, gold, split, group, source, then the other columns.

    Raises:
        SourceError: For the first thing that does not fit, naming source, row and remedy.
    """
    import pandas as pd

    tables = []
    sources = {"train": data.train if train is None else train}
    if data.test is not None or test is not None:
        sources["test"] = data.test if test is None else test
    for split, source in sources.items():
        place = _beside(source, folder) if isinstance(source, str) else source
        label = source if isinstance(source, str) else "memory"
        table = read_table(place, encoding=data.encoding, split=split)
        tables.append(
            _examples(table, data, task, split if "test" in sources else None, label, keep_columns)
        )
    frame = pd.concat(tables, ignore_index=True)
    _refuse_repeated_ids(frame, data)
    if "test" not in sources:
        frame["split"] = _split(frame, data, seed)
    frame = _without_overlap(frame, data)
    return _limited(frame, data, seed)


def _beside(source: str, folder: Path) -> str:
    path = folder / Path(source).expanduser()
    return str(path) if path.exists() or source.endswith(SUFFIXES) else source


def _examples(
    table: pd.DataFrame,
    data: DataSection,
    task: labelers.Task,
    split: str | None,
    source: str,
    keep_columns: tuple[str, ...],
) -> pd.DataFrame:
    import pandas as pd

    table = table.drop(columns=[c for c in data.ignore if c in table.columns])
    names = [str(name) for name in table.columns]
    for key, column in (("gold", data.gold), ("group", data.group), ("id", data.id)):
        if column is not None and column not in names:
            raise SourceError(
                f"data.{key} names the column {column!r}, which {source} lacks; it has {', '.join(names)}"
            )
    inputs = _render(table, names, data, task, source)
    golds: list[Any] = [None] * len(table)
    if data.gold is not None:
        golds = [_gold(v) for v in table[data.gold]]
    choices: list[list[str] | None] = [list(task.labels) if task.labels else None] * len(table)
    if task.choices:
        choices = [_options(v, i, task, source) for i, v in enumerate(table[task.choices])]
    _check_golds(golds, choices, data, source)
    ids = _ids(table, names, data, inputs)
    frame = pd.DataFrame(
        {
            "id": ids,
            "input": inputs,
            "choices": pd.Series(choices, dtype=object),
            "gold": pd.Series(golds, dtype=object),
            "split": split if split else _own_split(table, names),
            "group": [_plain(v) for v in table[data.group]] if data.group else [None] * len(table),
            "source": source,
        }
    )
    consumed = {data.gold, data.id, task.choices, "split"} | (task.columns & {"input"})
    for name in names:
        if name in consumed or (name == "id" and data.id is None):
            continue
        if name in RESERVED and name not in keep_columns:
            raise SourceError(
                f"{source} has a column {name!r}, a name that this toolkit writes to itself: rename it, or "
                f"add it to data.ignore{', or name it in data.gold' if name == 'label' else ''}"
            )
        if name not in frame.columns:
            frame[name] = table[name].to_numpy()
    return frame


def _own_split(table: pd.DataFrame, names: list[str]) -> Any:
    return [_plain(v) for v in table["split"]] if "split" in names else [None] * len(table)


def _render(
    table: pd.DataFrame, names: list[str], data: DataSection, task: labelers.Task, source: str
) -> list[str]:
    for column in sorted(task.columns):
        if column not in names:
            near = difflib.get_close_matches(column, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SourceError(
                f"task.template {task.template!r} names the column {column!r}, which {source} lacks; it has "
                f"{', '.join(names)}{hint}"
            )
    used = {name: table[name].tolist() for name in sorted(task.columns)}
    inputs = []
    for i in range(len(table)):
        row = {name: column[i] for name, column in used.items()}
        for name, value in row.items():
            if is_null(value) or (isinstance(value, str) and not value.strip()):
                raise SourceError(
                    f"{source}, row {i + 1}: the column {name!r}, which task.template reads, is null or "
                    "empty: fill it in or remove the row"
                )
        text = task.render(row)
        if len(text) > data.max_characters:
            raise SourceError(
                f"{source}, row {i + 1}: the input has {len(text):,} characters; data.max_characters allows "
                f"{data.max_characters:,}: shorten or remove the row, or raise the limit"
            )
        inputs.append(text)
    return inputs


def _plain(value: Any) -> str | None:
    if is_null(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _gold(value: Any) -> str | None:
    text = _plain(value)
    return None if text is None or not text.strip() else text


def _options(value: Any, i: int, task: labelers.Task, source: str) -> list[str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            value = None
    try:
        options = [str(v) for v in value] if value is not None else []
    except TypeError:
        options = []
    if len(options) < 2:
        raise SourceError(
            f"{source}, row {i + 1}: the column {task.choices!r} must hold a list of at least two options"
        )
    return options


def _check_golds(golds: list[Any], choices: list[Any], data: DataSection, source: str) -> None:
    for i, (gold, allowed) in enumerate(zip(golds, choices, strict=True)):
        if gold is not None and allowed is not None and gold not in allowed:
            raise SourceError(
                f"{source}, row {i + 1}: data.gold ({data.gold!r}) is {gold!r}, which is not one of "
                f"{allowed}: correct the row or add the label to task.labels"
            )


def _ids(table: pd.DataFrame, names: list[str], data: DataSection, inputs: list[str]) -> list[str]:
    column = data.id or ("id" if "id" in names else None)
    if column is not None:
        given = [_plain(v) for v in table[column]]
        missing = [i for i, value in enumerate(given) if not value]
        if missing:
            raise SourceError(
                f"row {missing[0] + 1}: the column {column!r} is null: give every row an id"
            )
        return [str(value) for value in given]
    seen: dict[str, int] = {}
    ids = []
    for text in inputs:
        base = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        seen[base] = seen.get(base, 0) + 1
        ids.append(base if seen[base] == 1 else f"{base}-{seen[base]}")
    return ids


def _refuse_repeated_ids(frame: pd.DataFrame, data: DataSection) -> None:
    repeated = frame["id"].duplicated(keep=False)
    if not repeated.any():
        return
    first = frame.loc[repeated, "id"].iloc[0]
    places = [
        f"{frame['source'][i]} (row {i + 1} of all)" for i in frame.index[frame["id"] == first]
    ]
    raise SourceError(
        f"the id {first!r} stands {len(places)} times: {'; '.join(places[:3])}. Ids must be unique: correct "
        "them, or add the id column to data.ignore to have ids made from the text"
    )


def _split(frame: pd.DataFrame, data: DataSection, seed: int) -> list[str]:
    if frame["split"].notna().all():
        unknown = sorted(set(frame["split"]) - {"train", "test", "validation"})
        if unknown:
            raise SourceError(
                f"the column 'split' holds {unknown[0]!r}: train, test and validation are allowed"
            )
        return [str(value) for value in frame["split"]]
    units = frame["group"].where(frame["group"].notna(), frame["id"])
    # By hash, so that a row stays on its side when others are added; twins count as one unit.
    first = dict(
        zip(reversed([normalised(t) for t in frame["input"]]), reversed(list(units)), strict=True)
    )
    if frame["group"].isna().all():
        units = frame["input"].map(lambda text: first[normalised(text)])
    return ["test" if _share(unit, seed) < data.test_fraction else "train" for unit in units]


def _share(unit: str, seed: int) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{unit}".encode()).digest()[:8]) / 2**64


def normalised(text: str) -> str:
    """Text as it is compared for being the same: compatibility forms, case and spacing folded."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _without_overlap(frame: pd.DataFrame, data: DataSection) -> pd.DataFrame:
    """Refuse, or drop on request, train rows whose text or group is also in test."""
    test = frame["split"] == "test"
    if not test.any() or test.all():
        missing = "test" if not test.any() else "train"
        raise SourceError(
            f"there are no {missing} rows: name data.test, set data.test_fraction, or check the column "
            "'split'"
        )
    texts = frame["input"].map(normalised)
    same_text = ~test & texts.isin(set(texts[test]))
    same_group = (
        ~test & frame["group"].notna() & frame["group"].isin(set(frame.loc[test, "group"].dropna()))
    )
    overlap = same_text | same_group
    if not overlap.any():
        return frame
    if data.overlap == "drop":
        return frame[~overlap].reset_index(drop=True)
    first = frame[overlap].iloc[0]
    what = "text" if same_text[overlap].iloc[0] else f"group {first['group']!r}"
    raise SourceError(
        f"{int(overlap.sum())} train rows are also in test, first {first['id']!r} (same {what}: "
        f"{first['input'][:60]!r}): a student tested on what it was trained on proves nothing. Remove them, "
        "or set data.overlap to drop"
    )


def _limited(frame: pd.DataFrame, data: DataSection, seed: int) -> pd.DataFrame:
    """At most so many rows of each split, drawn by hash: a larger limit keeps the smaller's rows."""
    keep = frame["id"] == frame["id"]
    for split, limit in (("train", data.limit), ("test", data.test_limit)):
        members = frame.index[frame["split"] == split]
        if limit is not None and len(members) > limit:
            order = sorted(members, key=lambda i: _share(str(frame["id"][i]), seed + 1))
            keep[order[limit:]] = False
    return frame[keep].reset_index(drop=True)
