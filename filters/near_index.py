"""A near-duplicate index that stays: rows are added from day to day, each held against all before.

In its folder lie `index.json` (the settings and the list of parts) and one folder per part. A part
is written under a temporary name and renamed, and counts from the moment when `index.json`, renamed
into place as well, names it: after a kill an `add` has happened entirely or not at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from filters.arguments import FilterError
from filters.duplicates import NearDuplicate
from filters.index_parts import (
    Part,
    join_sets,
    open_part,
    sign_rows,
    some_sets,
    sync,
    write_part,
)
from filters.proposals import Counts, choose_bands, count_shingles, least_agreement
from filters.rows import Flags, Ints, Rows
from filters.shingles import ShingleSets, jaccard, shingle

if TYPE_CHECKING:
    from filelock import BaseFileLock

_FORMAT = 1
_PARTS = 32  # with more, all are merged into one
_GROWTH = 10  # shingles are counted anew when the index has grown so many times
_CROWD = 64  # of the rows that share a band's key, the oldest so many are compared


@dataclass
class NearIndex:
    """Finds near duplicates of new rows among all rows added before.

    A row that is no duplicate is added; of two alike rows the one added first stays. A near text
    with another label is a conflict: both stay.

    Args:
        folder: Where the index lies; made if it is not there.
        near: How to compare; an index remembers it, and opens with no other.
        seed: Of the signatures.

    Raises:
        FilterError: The index was made with other settings, is damaged, or is open elsewhere.
    """

    folder: Path
    near: NearDuplicate = field(default_factory=NearDuplicate)
    seed: int = 0
    _parts: list[Part] = field(init=False, repr=False, default_factory=list)
    _counts: Counts | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        from filelock import FileLock, Timeout

        self.folder = Path(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock: BaseFileLock = FileLock(self.folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise FilterError(
                f"the index {self.folder} is open elsewhere; close it there first"
            ) from None
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __enter__(self) -> NearIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others open the index."""
        self._parts = []
        self._lock.release()

    def add(
        self,
        ids: Sequence[str],
        texts: Sequence[str],
        labels: Sequence[str | None] | None = None,
    ) -> pd.DataFrame:
        """Compare rows with all that are there and with one another, then add those that stay.

        A row that is there already (same id, same text) is passed over, so that an `add` cut short
        can simply be given again.

        Args:
            ids: The rows' ids.
            texts: The rows' texts.
            labels: The rows' labels; None agrees with every label.

        Returns:
            One line per match: `id`, `related_id`, `score`, `threshold`, and `verdict`: "drop"
            (the row is a duplicate of the related one and was not added), "conflict" or "keep".

        Raises:
            FilterError: Ids that repeat or stand in the index with another text, or no texts.
        """
        given = _check(ids, texts, labels)
        sets = shingle([given["input"].tolist()], self.near.shingle)
        given, sets = self._without_known(given, sets)
        if not len(given):
            return _lines([])
        if self._counts is None:
            self._counts = count_shingles(sets)
        keys, sketch = sign_rows(sets, self._counts, self._bands, self.seed)
        found = [self._match(part, given, sets, keys, sketch) for part in self._parts]
        taken = {line["row"] for lines in found for line in lines if line["verdict"] == "drop"}
        alive = np.array([row not in taken for row in range(len(given))])
        # The first of alike rows stays, as it would if they were added one by one.
        rows = Rows(
            frame=given,
            ids=given["id"].to_numpy(dtype=object),
            alive=alive,
            order=np.argsort(~alive, kind="stable"),
            labels=given["label"].to_numpy(dtype=object),
            seed=self.seed,
        )
        judgement = self.near.judge_sets(rows, sets)
        stays: Flags = alive & ~judgement.dropped
        among = judgement.matches
        lines = [line for lines in found for line in lines]
        for line in lines:
            if line["verdict"] == "conflict" and not stays[line["row"]]:
                line["verdict"] = "keep"
        lines += [
            self._line(given, row, str(rows.ids[related]), score, verdict)
            for row, related, score, verdict in zip(
                among.row, among.related, among.score, among.verdict, strict=True
            )
        ]
        kept = np.flatnonzero(stays)
        if len(kept):
            self._append(given.iloc[kept], some_sets(sets, kept), keys[:, kept], sketch[kept])
        return _lines(lines)

    # ------------------------------------------------------------------------------ comparing

    def _without_known(
        self, given: pd.DataFrame, sets: ShingleSets
    ) -> tuple[pd.DataFrame, ShingleSets]:
        """Leave out rows that are in the index."""
        fresh = np.array([each not in self._known for each in given["id"]], dtype=bool)
        for row in np.flatnonzero(~fresh):
            name = given["id"].iloc[row]
            if self._known[name] != int(sets.keys[row]):
                raise FilterError(
                    f"NearIndex: the id {name!r} is in the index with another text; give the new "
                    "text an id of its own"
                )
        keep = np.flatnonzero(fresh)
        return given.iloc[keep].reset_index(drop=True), some_sets(sets, keep)

    def _match(
        self, part: Part, given: pd.DataFrame, sets: ShingleSets, keys: Any, sketch: Any
    ) -> list[dict[str, Any]]:
        """Return the matches of new rows with one part."""
        new, old = part.candidates(keys, _CROWD)
        agree = np.count_nonzero(sketch[new] == part.sketch[old], axis=1)
        likely = agree >= least_agreement(self.near.lowest, sketch.shape[1])
        new, old = new[likely], old[likely]
        theirs, place = np.unique(old, return_inverse=True)
        both = join_sets([sets, some_sets(part.sets, theirs)])
        score = jaccard(both, new, place.astype(np.int64) + len(sets), self.near.lowest)
        lines = []
        for i in np.flatnonzero(score >= self.near.lowest):
            row, other = int(new[i]), int(old[i])
            verdict = "keep"
            if score[i] >= self.near.threshold:
                mine, label = given["label"].iloc[row], part.labels[other]
                differ = None not in (mine, label) and mine != label and self.near.same_label
                verdict = "conflict" if differ else "drop"
            lines.append(self._line(given, row, part.ids[other], score[i], verdict))
        return lines

    def _line(
        self, given: pd.DataFrame, row: int, related: str, score: float, verdict: str
    ) -> dict[str, Any]:
        return {
            "row": int(row),
            "id": given["id"].iloc[row],
            "related_id": related,
            "score": float(score),
            "threshold": float(self.near.threshold),
            "verdict": verdict,
        }

    # ---------------------------------------------------------------------------- on the disk

    def _open(self) -> None:
        self._bands = choose_bands(self.near.threshold, self.near.lowest, self.near.permutations, 0)
        settings = {
            "format": _FORMAT,
            "threshold": self.near.threshold,
            "floor": self.near.lowest,
            "shingle": list(self.near.shingle),
            "same_label": self.near.same_label,
            "permutations": self.near.permutations,
            "seed": self.seed,
        }
        path = self.folder / "index.json"
        self._state: dict[str, Any] = {"settings": settings, "parts": [], "counted": 0, "next": 1}
        if path.exists():
            try:
                self._state = json.loads(path.read_text("utf-8"))
                theirs = dict(self._state["settings"])
            except (ValueError, KeyError, TypeError) as error:
                raise FilterError(
                    f"{path} is damaged ({error}); restore it, or remove the folder and add the "
                    "rows again"
                ) from error
            for name, value in settings.items():
                if theirs.get(name) != value:
                    raise FilterError(
                        f"the index {self.folder} was made with {name} {theirs.get(name)!r}, not "
                        f"{value!r}; open it with that value, or name another folder"
                    )
        self._parts = [open_part(self.folder / name) for name in self._state["parts"]]
        counted = self._state["counted"]
        self._counts = np.load(self.folder / self._state["counts"]) if counted else None
        self._known = {
            name: int(key)
            for part in self._parts
            for name, key in zip(part.ids, part.sets.keys, strict=True)
        }
        self._sweep()

    def _append(self, given: pd.DataFrame, sets: ShingleSets, keys: Any, sketch: Any) -> None:
        """Add rows as a new part, or merge all parts where there are many or counts are old."""
        ids, labels = given["id"].tolist(), given["label"].tolist()
        total, parts = len(self) + len(ids), list(self._state["parts"])
        anew = total >= _GROWTH * self._state["counted"]
        if anew or len(parts) >= _PARTS:
            sets = join_sets([*(part.sets for part in self._parts), sets])
            ids = [*(name for part in self._parts for name in part.ids), *ids]
            labels = [*(label for part in self._parts for label in part.labels), *labels]
            parts = []
            if anew or self._counts is None:
                self._counts = count_shingles(sets)
            keys, sketch = sign_rows(sets, self._counts, self._bands, self.seed)
        number = self._state["next"]
        name = f"part-{number:06d}"
        write_part(self.folder / name, ids, labels, sets, keys, sketch)
        state = {**self._state, "parts": [*parts, name], "next": number + 1}
        if anew:
            state |= {"counted": total, "counts": f"counts-{number:06d}.npy"}
            np.save(self.folder / state["counts"], np.asarray(self._counts))
            sync(self.folder / state["counts"])
        draft = self.folder / "index.json.draft"
        draft.write_text(json.dumps(state, indent=1), encoding="utf-8")
        sync(draft)
        draft.replace(self.folder / "index.json")
        sync(self.folder)
        self._state = state
        kept = [] if not parts else self._parts
        self._parts = [*kept, open_part(self.folder / name)]
        self._known |= dict(zip(ids, map(int, sets.keys), strict=True))
        self._sweep()

    def _sweep(self) -> None:
        """Remove what a kill or a merge has left behind."""
        named = {*self._state["parts"], self._state.get("counts")}
        for path in [*self.folder.glob("part-*"), *self.folder.glob("counts-*.npy")]:
            if path.name not in named:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _check(
    ids: Sequence[str], texts: Sequence[str], labels: Sequence[str | None] | None
) -> pd.DataFrame:
    from filters.frames import read_ids
    from filters.rows import texts as read_texts

    labels = [None] * len(ids) if labels is None else labels
    if not len(ids) == len(texts) == len(labels):
        raise FilterError(
            f"NearIndex: there are {len(ids)} ids, {len(texts)} texts and {len(labels)} labels; "
            "give one of each per row"
        )
    frame = pd.DataFrame({"id": list(ids), "input": list(texts)}, dtype=object)
    named: list[str | None] = [None if label is None else str(label).strip() for label in labels]
    frame["label"] = np.array([*named, None], dtype=object)[:-1]
    nothing = np.zeros(len(frame), dtype=bool)
    order: Ints = np.arange(len(frame))
    read_texts(Rows(frame=frame, ids=read_ids(frame), alive=nothing, order=order), "input", "add")
    return frame


def _lines(lines: list[dict[str, Any]]) -> pd.DataFrame:
    columns = ["id", "related_id", "score", "threshold", "verdict"]
    frame = pd.DataFrame(
        [{name: line[name] for name in columns} for line in lines], columns=columns
    )
    weight = frame["verdict"].map({"drop": 0, "conflict": 1, "keep": 2})
    order = np.lexsort((frame["related_id"], -frame["score"].astype(float), weight, frame["id"]))
    return frame.iloc[order].reset_index(drop=True)
