"""Whether a written text is a text at all, and whether it says anything that is not there already."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable

#: Words of most scripts; of those that are written without spaces, single characters.
_WORD = re.compile(r"[^\W\u3040-\u30ff\u3400-\u9fff]+|[\u3040-\u30ff\u3400-\u9fff]")
#: Of a text this long, a share that stands elsewhere word for word was copied, not met by chance.
_RUN = 8
_COPIED = 0.5
_LOOP_WORDS = 8
_LOOP_DISTINCT = 0.4


def words(text: str) -> list[str]:
    """The words of a text, without case and compatibility forms."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def is_text(text: str) -> bool:
    """Whether it is prose: mostly letters, nothing undecodable, and no loop of the same few words."""
    visible = [character for character in text if not character.isspace()]
    if not visible or "\ufffd" in text:
        return False
    if sum(character.isalpha() for character in visible) < len(visible) / 2:
        return False
    found = words(text)
    return len(found) < _LOOP_WORDS or len(set(found)) >= _LOOP_DISTINCT * len(found)


class Nearness:
    """Texts by their words, so that a new one's nearest is found exactly, without comparing it to all.

    The measure is the Jaccard similarity of the sets of words. Two sets that reach a threshold t share
    a word among any ``|x| - ceil(t |x|) + 1`` words of the one, so that only texts with one of its rarest
    words are compared (prefix filtering: Chaudhuri et al., 2006; Bayardo et al., 2007).

    Args:
        threshold: Similarity from which a text counts as near, above 0 and at most 1.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._sets: list[frozenset[str]] = []
        self._names: list[str] = []
        self._holding: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, name: str, text: str) -> None:
        """Remember a text under a name."""
        found = frozenset(words(text))
        for word in found:
            self._holding[word].append(len(self._sets))
        self._sets.append(found)
        self._names.append(name)

    def nearest(self, text: str) -> tuple[str, float] | None:
        """The name and similarity of the nearest text at or above the threshold; the first of equals."""
        mine = frozenset(words(text))
        if not mine:
            return None
        rare = sorted(mine, key=lambda word: (len(self._holding.get(word, ())), word))
        # The small margin keeps a similarity of exactly the threshold from being lost to rounding.
        share = math.ceil(self.threshold * len(mine) - 1e-9)
        candidates = {
            i for word in rare[: len(mine) - share + 1] for i in self._holding.get(word, ())
        }
        best: tuple[int, float] | None = None
        for i in sorted(candidates):
            common = len(mine & self._sets[i])
            similarity = common / (len(mine) + len(self._sets[i]) - common)
            if similarity >= self.threshold and (best is None or similarity > best[1]):
                best = i, similarity
        return None if best is None else (self._names[best[0]], best[1])


class Forbidden:
    """Texts that nothing generated may repeat, such as test inputs; kept as hashes of their words.

    A text is near to one of them if their sets of words reach the threshold, or if half of either's runs
    of eight words stand in the other, which finds a short test text within a longer generated one.

    Args:
        texts: The texts.
        threshold: Jaccard similarity of the sets of words from which a text is near.
    """

    def __init__(self, texts: Iterable[str], threshold: float) -> None:
        self._near = Nearness(threshold)
        self._runs: defaultdict[str, list[int]] = defaultdict(list)
        self._sizes: list[int] = []
        for i, text in enumerate(texts):
            self._near.add(str(i), _veiled(words(text)))
            runs = _runs(text)
            self._sizes.append(len(runs))
            for run in runs:
                self._runs[run].append(i)

    def similarity(self, text: str) -> float | None:
        """How near the nearest is, or None where none is near."""
        found = self._near.nearest(_veiled(words(text)))
        best = found[1] if found else 0.0
        mine = _runs(text)
        shared = Counter(i for run in mine for i in self._runs.get(run, ()))
        for i, common in shared.items():
            contained = common / min(len(mine), self._sizes[i])
            if contained >= _COPIED:
                best = max(best, contained)
        return best or None


def _veiled(found: Iterable[str]) -> str:
    return " ".join(_hash(word) for word in found)


def _runs(text: str) -> set[str]:
    found = words(text)
    return {_hash(" ".join(found[i : i + _RUN])) for i in range(len(found) - _RUN + 1)}


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
