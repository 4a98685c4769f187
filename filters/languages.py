"""Is a text in the language that was asked for? A guess from letters and small words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from filters.arguments import check_choice, check_number
from filters.limits import BELOW, check_fields, drop_below, score_fields
from filters.rows import Floats, Judgement, Rows

_ENOUGH = 3  # small words below which the Latin languages are not told apart

_SMALL_WORDS = {
    "en": "the of and to in is was it that for with as his on be at by had not are but from or have an "
    "they which were her she he you their one all would there been if when who will more no out so "
    "what can my me this i we do does your than only because",
    "de": "der die das und ist nicht ein eine zu den mit sich auf dem für von im des auch es an als er sie "
    "ich wir werden aus bei oder sind einem einen wie war haben hat wird nach noch aber nur über",
    "fr": "le la les des et est un une du que qui dans pour pas sur au ce il elle ne se plus par je vous "
    "nous avec sont cette mais ou son sa ses été aux fait être très c'est",
    "es": "el la los las de y que en un una es no por con para se del lo su al como más pero sus le ya "
    "este sí porque esta entre cuando muy sin sobre también me hay fue son está",
    "it": "il la le gli di e che è un una non per con del della si dei sono ma come anche più nel alla lo "
    "ho questo questa ha da delle al molto essere se mi",
    "pt": "o a os as de e que em um uma não por com para se do da no na mais como mas foi ao ele das dos "
    "seu sua ou quando muito já está também só pelo pela é são",
    "nl": "de het een en van ik te dat die in is niet op aan met als voor er maar om ook dan zijn hij wat "
    "nog bij uit naar wordt deze heeft dit was geen",
}
_SCRIPTS = {
    "ru": r"Ѐ-ӿ",
    "uk": r"Ѐ-ӿ",
    "el": r"Ͱ-Ͽ",
    "he": r"֐-׿",
    "ar": r"؀-ۿ",
    "hi": r"ऀ-ॿ",
    "th": r"฀-๿",
    "ko": r"가-힯ᄀ-ᇿ",
    "ja": r"぀-ヿ一-鿿",
    "zh": r"一-鿿",
}
LANGUAGES = (*_SMALL_WORDS, *_SCRIPTS)
_LATIN = r"A-Za-zÀ-ɏ"
_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_OWNERS: dict[str, list[str]] = {}
for _name, _words in _SMALL_WORDS.items():
    for _word in _words.split():
        if len(_word) > 1:  # single letters also number lists and options
            _OWNERS.setdefault(_word, []).append(_name)


@dataclass(frozen=True, kw_only=True)
class Language:
    """Drop rows that are not in the expected language, by letters and small words.

    The score is the share of a text's letters that are of the language's script. For the languages
    in Latin letters it is multiplied by a / (a + b), where a is the number of small words ("the",
    "und", "que") of the language and b that of the next likeliest one; a word of several
    languages counts in part for each. With fewer than three small words only the script counts.
    NaN for a text without letters.

    This is a rough guess without a model. It tells whole sentences of these languages apart, and
    not, say, Russian from Ukrainian, short titles, or languages that it does not list.

    Args:
        language: One of de, en, es, fr, it, nl, pt (small words and script), ar, el, he, hi, ja,
            ko, ru, th, uk, zh (script only).
        minimum: Rows with a lower score are dropped; in [0, 1].
        fields: Text columns, judged together by the one that scores lowest.
    """

    reason: ClassVar[str] = "language"
    drops = BELOW
    language: str = "en"
    minimum: float = 0.5
    fields: Sequence[str] = ("input",)

    def __post_init__(self) -> None:
        check_choice(self.reason, "language", self.language, LANGUAGES)
        check_number(self.reason, "minimum", self.minimum, low=0, high=1, remedy="try 0.5")
        object.__setattr__(self, "fields", check_fields(self.reason, self.fields))

    def judge(self, rows: Rows) -> Judgement:
        """Score every row's texts."""

        def score(found: list[str]) -> Floats:
            return np.array([score_language(text, self.language) for text in found], np.float64)

        scores = score_fields(rows, self.fields, self.reason, score, np.fmin)
        return drop_below(rows, scores, self.minimum)


def score_language(text: str, language: str) -> float:
    """Return how much speaks for a text being in a language, from 0 to 1; NaN without letters."""
    letters = "".join(_LETTER.findall(text))
    if not letters:
        return np.nan
    ours = _SCRIPTS.get(language, _LATIN)
    in_script = len(re.findall(f"[{ours}]", letters)) / len(letters)
    if language not in _SMALL_WORDS:
        return in_script
    words = Counter(word.lower().replace("’", "'") for word in _WORD.findall(text))
    known = {word: count for word, count in words.items() if word in _OWNERS}
    if sum(known.values()) < _ENOUGH:
        return in_script
    held = dict.fromkeys(_SMALL_WORDS, 0.0)
    for word, count in known.items():
        for owner in _OWNERS[word]:
            held[owner] += count / len(_OWNERS[word])
    own = held.pop(language)
    others = max(held.values())
    return in_script * own / (own + others)


def small_words(language: str) -> frozenset[str]:
    """Return the words of a language that say little by themselves."""
    return frozenset(_SMALL_WORDS[language].split())
