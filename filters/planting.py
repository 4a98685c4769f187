"""Plant known changes in rows, to see what filters make of them. All by rule, all English."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

#: What is planted, and what should become of it: a twin beside its origin is to be dropped or kept,
#: a label that was flipped in place is to be dropped.
KINDS = {
    "edit": "drop",
    "edits": "drop",
    "truncated": "drop",
    "reworded": "drop",
    "contrast": "keep",
    "label_flip": "drop",
}


def _both_ways(listed: str) -> dict[str, str]:
    """Read "one/other" pairs into a table from either to the other."""
    table: dict[str, str] = {}
    for pair in listed.split():
        one, other = pair.split("/")
        table.setdefault(one, other)
        table.setdefault(other, one)
    return table


_SYNONYMS = _both_ways(
    """
    good/fine great/excellent big/large small/little fast/quick easy/simple bad/poor buy/purchase
    bought/purchased start/begin began/started help/aid also/too maybe/perhaps often/frequently
    problem/issue nice/pleasant like/enjoy movie/film phone/handset picture/image get/obtain
    show/display broken/defective quickly/rapidly nearly/almost enough/sufficient people/persons
    """
)
_ANTONYMS = _both_ways(
    """
    good/bad great/terrible best/worst better/worse love/hate loved/hated like/dislike easy/hard
    fast/slow always/never more/less high/low new/old strong/weak happy/sad cheap/expensive
    works/fails excellent/awful beautiful/ugly interesting/boring right/wrong true/false up/down
    before/after all/none increase/decrease added/removed with/without many/few first/last big/small
    full/empty
    """
)
_SHORT = {
    "do not": "don't", "does not": "doesn't", "did not": "didn't", "is not": "isn't", "it is": "it's",
    "was not": "wasn't", "i am": "I'm", "i have": "I've", "can not": "can't", "that is": "that's",
    "they are": "they're", "you are": "you're", "will not": "won't", "would not": "wouldn't",
}  # fmt: skip
_EMPTY = {"very", "really", "quite", "just", "simply", "actually", "rather", "so"}
_VERBS = {"is", "are", "was", "were", "has", "have", "had", "can", "will", "would", "could"}


def plant(
    rows: pd.DataFrame, kind: str, labels: Sequence[str], draw: random.Random
) -> pd.DataFrame:
    """Return changed copies of rows, as many as the change can be made to.

    Args:
        rows: Rows with `id`, `input` and perhaps `label` and `choices`.
        kind: One of `KINDS`. "edit" replaces one or two words by words of other rows, "edits" replaces,
            drops or doubles a tenth of the words, "truncated" cuts 10 to 40 % of the words off the
            end, "reworded" uses synonyms, contractions, filler words and the order of two clauses,
            "contrast" turns one word into its opposite, or negates, and gives another label,
            "label_flip" gives another label to the same text.
        labels: All labels there are.
        draw: Where chance comes from.

    Returns:
        The copies, with ids of their own and the column `origin`.
    """
    words = sorted({word for text in rows["input"] for word in text.split()})
    planted = []
    for row in rows.to_dict("records"):
        text: str | None = row["input"]
        if kind in ("contrast", "label_flip"):
            row["label"] = _other_label(row, labels, draw)
            if row["label"] is None:
                continue
        if kind != "label_flip":
            text = _CHANGES[kind](str(text).split(), words, draw)
        if text is None or (kind != "label_flip" and text == row["input"]):
            continue
        planted.append(row | {"id": f"{kind}\0{row['id']}", "input": text, "origin": row["id"]})
    return pd.DataFrame(planted, columns=[*rows.columns, "origin"])


def _other_label(row: dict[Any, Any], labels: Sequence[str], draw: random.Random) -> str | None:
    own = row.get("choices")
    choices = labels if own is None or isinstance(own, float) else list(own)
    others = [label for label in choices if label != row.get("label")]
    return draw.choice(others) if others and isinstance(row.get("label"), str) else None


def _edit(words: list[str], others: Sequence[str], draw: random.Random) -> str:
    words = list(words)
    for place in draw.sample(range(len(words)), min(draw.choice((1, 2)), len(words))):
        words[place] = draw.choice(others)
    return " ".join(words)


def _edits(words: list[str], others: Sequence[str], draw: random.Random) -> str:
    changed = []
    places = set(draw.sample(range(len(words)), max(1, round(0.1 * len(words)))))
    for place, word in enumerate(words):
        how = draw.random() if place in places else 1.0
        if how < 0.6:
            changed.append(draw.choice(others))
        elif how < 0.8 and len(words) > 1:
            continue
        else:
            changed += [word] * (2 if place in places else 1)
    return " ".join(changed or words)


def _truncated(words: list[str], others: Sequence[str], draw: random.Random) -> str:
    cut = max(1, round(draw.uniform(0.1, 0.4) * len(words)))
    return " ".join(words[: max(len(words) - cut, 1)])


def _reworded(words: list[str], others: Sequence[str], draw: random.Random) -> str | None:
    """Apply at most three rules that leave the meaning be; None if none of them fits."""
    text = " ".join(words)
    rules = [_by_synonyms, _by_contraction, _by_clauses, _by_filler]
    draw.shuffle(rules)
    done = 0
    for rule in rules:
        changed = rule(text)
        done, text = done + (changed != text), changed
        if done == 3:
            break
    return text if done else None


def _by_synonyms(text: str) -> str:
    return _swap(text, _SYNONYMS, 2)


def _by_contraction(text: str) -> str:
    for long, short in _SHORT.items():
        for one, other in ((long, short), (short, long)):
            changed = re.sub(rf"\b{re.escape(one)}\b", other, text, count=1, flags=re.IGNORECASE)
            if changed != text:
                return changed
    return text


def _by_clauses(text: str) -> str:
    """Turn "A, but B." into "B., but A": the two sides of the middle comma change places."""
    end = text[-1] if text and text[-1] in ".!?" else ""
    parts = text.removesuffix(end).split(", ") if end else text.split(", ")
    if len(parts) != 2 or min(len(part.split()) for part in parts) < 2:
        return text
    return f"{parts[1]}, {parts[0]}{end}"


def _by_filler(text: str) -> str:
    words = text.split()
    left = [word for word in words if word.lower() not in _EMPTY]
    return " ".join(left) if len(left) > 2 else text


def _contrast(words: list[str], others: Sequence[str], draw: random.Random) -> str | None:
    text = " ".join(words)
    changed = _swap(text, _ANTONYMS, 1)
    if changed != text:
        return changed
    for place, word in enumerate(words):
        if word.lower() in ("not", "never"):
            return " ".join([*words[:place], *words[place + 1 :]])
        if word.lower() in _VERBS:
            return " ".join([*words[: place + 1], "not", *words[place + 1 :]])
    return None


def _swap(text: str, table: dict[str, str], most: int) -> str:
    """Replace the first `most` words that the table knows, keeping case and punctuation."""
    left = most

    def one(match: re.Match[str]) -> str:
        nonlocal left
        word = match[0]
        other = table.get(word.lower())
        if other is None or not left:
            return word
        left -= 1
        return other.capitalize() if word[0].isupper() else other

    return re.sub(r"[A-Za-z]+", one, text)


_CHANGES: dict[str, Callable[[list[str], Sequence[str], random.Random], str | None]] = {
    "edit": _edit,
    "edits": _edits,
    "truncated": _truncated,
    "reworded": _reworded,
    "contrast": _contrast,
}
