"""Rows from any source, in the columns that everything else reads, checked before anything is paid."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filters
from curate.gold import check_gold, in_one_shape, plain_text, read_gold
from curate.recipe import DataSection
from curate.splits import limit_rows, refuse_overlap, split_rows
from curate.tables import SUFFIXES, SourceError, holds_text_alone, is_null, read_options, read_table

if TYPE_CHECKING:
    import pandas as pd

    import labelers

#: Column names that stages write; data may not bring its own under these names.
RESERVED = frozenset(
    [
        *("id", "input", "choices", "gold", "split", "group", "source", "label", "rationale"),
        *("label_probs", "label_source", "off_label_mass", "confidence", "votes", "agreement"),
        *("rationales", "related_id"),
        *("finish_reason", "teacher", "prompt_key", "prompt_tokens", "completion_tokens"),
        *("cost_usd", "error", "keep", "reason", "cluster", "weight", "copies", "review"),
        *("map_x", "map_y", "suspect_rank", "suspect_opinion"),
        *("suspect_opinion_probability", "suspect_label_probability"),
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
    separator: str | None = None,
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
        separator: The recipe's ``task.separator``: a list of gold labels is then one set, written as one
            text. Without it a list holds several references, each of which is right.

    Returns:
        One row per example: id, input, choices, gold, split, group, source, then the other columns.
        ``gold`` holds texts, or lists of references throughout where some row has several.

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
        how = {"separator": separator, "as_json": holds_text_alone(place)}
        side = split if "test" in sources else None
        tables.append(_examples(table, data, task, side, label, keep_columns, how))
    frame = pd.concat(tables, ignore_index=True)
    frame["gold"] = pd.Series(in_one_shape(frame["gold"].tolist()), dtype=object)
    _refuse_what_cannot_be_written(frame)
    frame["id"] = _with_made_ids(frame)
    if "test" not in sources:
        frame["split"] = split_rows(frame, data, seed, keep_twins_together=data.keep_twins_together)
    place = frame["source"] + ", row " + (frame.groupby("source").cumcount() + 1).astype(str)
    frame = refuse_overlap(frame, data)
    _refuse_repeated_ids(frame, place)
    return limit_rows(frame, data)


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
    gold_cells: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    import pandas as pd

    table = table.drop(columns=[c for c in data.ignore if c in table.columns])
    names = [str(name) for name in table.columns]
    # The usual case: raw text to train on, and a labelled file to judge by.
    unlabelled = split == "train" and data.gold is not None and data.gold not in names
    gold = None if unlabelled else data.gold
    for key, column in (("gold", gold), ("group", data.group), ("id", data.id)):
        if column is not None and column not in names:
            raise SourceError(
                f"data.{key} names the column {column!r}, which {source} lacks; it has {', '.join(names)}"
            )
    choices: list[list[str] | None] = [list(task.labels) if task.labels else None] * len(table)
    if task.choices and task.choices in names:
        choices = [_options(v, i, task, source) for i, v in enumerate(table[task.choices])]
    inputs = _render(table, names, data, task, source, choices)
    golds: list[Any] = [None] * len(table)
    for i, value in enumerate(() if gold is None else table[gold]):
        cell = f"{source}, row {i + 1}: data.gold ({gold!r})"
        golds[i] = read_gold(value, cell, **(gold_cells or {}))
        check_gold(golds[i], choices[i], cell)
    frame = pd.DataFrame(
        {
            "id": pd.Series(_given_ids(table, names, data, source), dtype=object),
            "input": pd.Series(inputs, dtype=object),
            "choices": pd.Series(choices, dtype=object),
            "gold": pd.Series(golds, dtype=object),
            "split": pd.Series(_own_split(table, names, split, source), dtype=object),
            "group": pd.Series(
                [plain_text(v) for v in table[data.group]] if data.group else [None] * len(table),
                dtype=object,
            ),
            "source": source,
        }
    )
    # What the recipe names lives on under the house's names; a reserved name stands in nobody's way then.
    named = {name for name in (*task.columns, data.group) if name and _is_reserved(name)}
    consumed = {data.gold, data.id, task.choices, "split", *named} - {*keep_columns}
    for name in names:
        if name in consumed or (name == "id" and data.id is None):
            continue
        if _is_reserved(name) and (name not in keep_columns or name in frame.columns):
            raise SourceError(
                f"{source} has a column {name!r}, a name that this toolkit writes to itself: rename it, or "
                f"add it to data.ignore{', or name it in data.gold' if name == 'label' else ''}"
            )
        if name not in frame.columns:
            frame[name] = table[name].to_numpy()
    return frame


def _is_reserved(name: str) -> bool:
    scored = name.removeprefix("score_")
    return name in RESERVED or (scored != name and scored in filters.FILTERS)


def _own_split(
    table: pd.DataFrame, names: list[str], split: str | None, source: str
) -> list[str | None]:
    """What the data's own column says; where test rows are named apart, it must not contradict."""
    if "split" not in names:
        return [split] * len(table)
    own = [plain_text(v) for v in table["split"]]
    if split is None:
        if None in own and any(own):
            raise SourceError(
                f"the column 'split' is null in row {own.index(None) + 1} of {source} and not in others: "
                "fill it in, or add it to data.ignore to have the rows split at random"
            )
        return own
    allowed = ("train", "validation") if split == "train" else ("test",)
    for i, value in enumerate(own):
        if value is not None and value not in allowed:
            raise SourceError(
                f"{source}, row {i + 1}: data.{split} names these rows, and one says {value!r} in its column "
                "'split': remove the row, or add the column to data.ignore"
            )
    return [value or split for value in own]


def _render(
    table: pd.DataFrame,
    names: list[str],
    data: DataSection,
    task: labelers.Task,
    source: str,
    choices: list[list[str] | None],
) -> list[str]:
    for column in sorted(task.columns):
        if column not in names:
            near = difflib.get_close_matches(column, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            key = "task.choices" if column == task.choices else f"task.template {task.template!r}"
            raise SourceError(
                f"{key} names the column {column!r}, which {source} lacks; it has "
                f"{', '.join(names)}{hint}"
            )
    used = {name: table[name].tolist() for name in sorted(task.columns)}
    if task.choices:
        used[task.choices] = choices
    inputs = []
    for i in range(len(table)):
        place = f"{source}, row {i + 1}"
        text = _rendered({name: column[i] for name, column in used.items()}, task, place)
        if len(text) > data.max_characters:
            raise SourceError(
                f"{place}: the input has {len(text):,} characters; data.max_characters allows "
                f"{data.max_characters:,}: shorten or remove the row, or raise the limit"
            )
        inputs.append(text)
    return inputs


def _rendered(row: dict[str, Any], task: labelers.Task, place: str) -> str:
    """One row's input; an empty cell is as absent as a null one, and may stay where a default is given."""
    from labelers import TaskError

    for name, value in row.items():
        if is_null(value) or (isinstance(value, str) and not value.strip()):
            row[name] = None
        elif isinstance(value, str) and not _is_whole(value):
            raise SourceError(
                f"{place}: the column {name!r} holds half of a surrogate pair, which is no character: "
                "remove it"
            )
    empty = [name for name, value in row.items() if value is None]
    try:
        text = task.render(row)
    except TaskError as error:
        if not empty:
            raise SourceError(f"{place}: {error}") from error
        text = ""
    if not text.strip() or len(empty) == len(row):
        raise SourceError(
            f"{place}: the column {(empty or sorted(row))[0]!r}, which task.template reads, is null or "
            "empty: fill it in, remove the row, or give a default in the template, {{ name or 'none' }}"
        )
    return text


def _is_whole(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _options(value: Any, i: int, task: labelers.Task, source: str) -> list[str]:
    options = read_options(value) or []
    problem = "" if len(options) >= 2 else "must hold a list of at least two options"
    if len(set(options)) < len(options):
        problem = f"holds an option twice: {options}"
    if problem:
        raise SourceError(f"{source}, row {i + 1}: the column {task.choices!r} {problem}")
    return options


def _given_ids(
    table: pd.DataFrame, names: list[str], data: DataSection, source: str
) -> list[str | None]:
    column = data.id or ("id" if "id" in names else None)
    if column is None:
        return [None] * len(table)
    given = [plain_text(v) for v in table[column]]
    missing = [i for i, value in enumerate(given) if not value]
    if missing:
        raise SourceError(
            f"{source}, row {missing[0] + 1}: the column {column!r} is null: give every row an id, or add "
            "the column to data.ignore to have ids made from the text"
        )
    return given


def _with_made_ids(frame: pd.DataFrame) -> list[str]:
    """Where the data gives no id, a hash of the text, numbered where texts are equal."""
    seen: dict[str, int] = {}
    ids = []
    for given, text in zip(frame["id"], frame["input"], strict=True):
        if given is not None:
            ids.append(str(given))
            continue
        base = hashlib.sha256(text.encode()).hexdigest()[:16]
        seen[base] = seen.get(base, 0) + 1
        ids.append(base if seen[base] == 1 else f"{base}-{seen[base]}")
    return ids


def _refuse_repeated_ids(frame: pd.DataFrame, place: pd.Series) -> None:
    repeated = frame["id"].duplicated(keep=False)
    if not repeated.any():
        return
    first = frame.loc[repeated, "id"].iloc[0]
    places = [place[i] for i in frame.index[frame["id"] == first]]
    raise SourceError(
        f"the id {first!r} stands {len(places)} times: {'; '.join(places[:3])}. Ids must be unique: correct "
        "them, or add the id column to data.ignore to have ids made from the text"
    )


def _refuse_what_cannot_be_written(frame: pd.DataFrame) -> None:
    """A column of several kinds would fail when the run's first file is written; say so, by name."""
    import pyarrow as pa

    for name in frame.columns:
        try:
            pa.array(frame[name], from_pandas=True)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            reason = str(error.args[0] if error.args else error).rstrip(".")
            raise SourceError(
                f"the column {name!r} holds values of several kinds, or what a table cannot hold ({reason}): "
                "make them one kind, or add the column to data.ignore"
            ) from error
