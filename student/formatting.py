"""How a row's texts become the student's input and target; the same in training and predicting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from student.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Formatting",
    "answer_start",
    "check_marker",
    "label_sources",
    "label_targets",
    "split_answer",
    "token_ids",
]


@dataclass(frozen=True, kw_only=True)
class Formatting:
    """How a text becomes the student's input; saved with the student, so that predict does alike.

    `rationale_in` says where a rationale stands, if anywhere:

        "task"    a second task of its own, told apart by its prefix (Hsieh et al. 2023)
        "target"  in the target, before the label:  rationale + `answer_marker` + label
        "input"   in the input, after the text:     text + `rationale_marker` + rationale

    With `shared_encoder` both tasks read the same encoder states (input with `label_prefix`), and the
    decoder's first token is the task token instead of the rationale's prefix: the usual start token
    for the label, `</s>` for the rationale. Limits are in tokens, the closing `</s>` included.
    """

    label_prefix: str = ""
    rationale_prefix: str = "[rationale] "
    rationale_in: str = "task"
    shared_encoder: bool = False
    answer_marker: str = "So the answer is:"
    rationale_marker: str = "Rationale:"
    max_input_tokens: int = 512
    max_label_tokens: int = 64
    max_rationale_tokens: int = 128


def token_ids(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[list[list[int]], int]:
    """Tokenise `texts`, each ending in `</s>` and at most `limit` long; count those cut."""
    if not texts:
        return [], 0
    end = tokenizer.eos_token_id
    found = tokenizer(list(texts), truncation=False, padding=False, verbose=False)["input_ids"]
    whole = [ids if ids and ids[-1] == end else [*ids, end] for ids in found]
    cut = sum(len(ids) > limit for ids in whole)
    return [ids if len(ids) <= limit else [*ids[: limit - 1], end] for ids in whole], cut


def label_sources(
    texts: Sequence[str],
    rationales: Sequence[str | None],
    tokenizer: PreTrainedTokenizerBase,
    formatting: Formatting,
) -> tuple[list[list[int]], dict[str, int]]:
    """Return the label task's inputs as ids, and how many "inputs" and "rationales" were cut.

    With `rationale_in="input"` the rationale, cut at its own limit, keeps its room and the text is
    cut before it; a row without one is the text alone. Else `rationales` is not looked at.
    """
    prefixed = [formatting.label_prefix + text for text in texts]
    limit = formatting.max_input_tokens
    if formatting.rationale_in != "input":
        sources, cut = token_ids(prefixed, tokenizer, limit)
        return sources, {"inputs": cut, "rationales": 0}
    added, cut_rationales = token_ids(
        # In a table's column, no text may be None or NaN.
        [
            f"{formatting.rationale_marker} {text}"
            if isinstance(text, str) and text.strip()
            else ""
            for text in rationales
        ],
        tokenizer,
        min(formatting.max_rationale_tokens, limit),
    )
    sources, cut = [], 0
    for text, more in zip(token_ids(prefixed, tokenizer, 10**9)[0], added, strict=True):
        room = limit - len(more)  # `more` ends in </s>, and is </s> alone without a rationale
        cut += len(text) - 1 > room
        sources.append(text[:-1][:room] + more)
    return sources, {"inputs": cut, "rationales": cut_rationales}


def label_targets(
    labels: Sequence[str],
    rationales: Sequence[str | None],
    tokenizer: PreTrainedTokenizerBase,
    formatting: Formatting,
) -> tuple[list[list[int]], dict[str, int]]:
    """Return the label task's targets as ids, and how many "labels" and "rationales" were cut.

    With `rationale_in="target"` a target is rationale, marker, label, joined as ids: cutting a long
    rationale never cuts the label. A row without a rationale has marker and label alone.
    """
    targets, cut = token_ids(labels, tokenizer, formatting.max_label_tokens)
    if formatting.rationale_in != "target":
        return targets, {"labels": cut, "rationales": 0}
    starts, cut_rationales = answer_start(rationales, tokenizer, formatting)
    joined = [start + target for start, target in zip(starts, targets, strict=True)]
    return joined, {"labels": cut, "rationales": cut_rationales}


def answer_start(
    rationales: Sequence[str | None], tokenizer: PreTrainedTokenizerBase, formatting: Formatting
) -> tuple[list[list[int]], int]:
    """Return what a target of rationale and label begins with, before the label; count those cut."""
    marker = token_ids([formatting.answer_marker], tokenizer, 10**9)[0][0][:-1]
    limit = formatting.max_rationale_tokens
    written, cut = token_ids([text or "" for text in rationales], tokenizer, limit)
    return [ids[:-1] + marker for ids in written], cut


def split_answer(text: str, marker: str) -> tuple[str, str | None]:
    """Part a written answer at its last marker into rationale and label; no marker, no label."""
    before, found, after = text.rpartition(marker)
    if not found:
        return text.strip(), None
    return before.strip(), after.strip()


def check_marker(marker: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a marker that would not be found again in what a student with this tokenizer writes."""
    ids = token_ids([marker], tokenizer, 10**9)[0][0]
    back = str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
    if not back or back != marker:
        raise InputError(
            f"answer_marker={marker!r} comes back from this student's tokenizer as {back!r}, so that "
            "the label could not be found behind it; use plain words without spaces around them"
        )
