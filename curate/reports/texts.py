"""Text as the report shows it: numbers, clipped rows, marked differences, masked secrets."""

from __future__ import annotations

import difflib
import math
import re
from typing import Any

from markupsafe import Markup, escape

__all__ = [
    "as_count",
    "as_duration",
    "as_interval",
    "as_money",
    "as_number",
    "as_percent",
    "as_points",
    "clean",
    "clip",
    "counted",
    "mark_differences",
    "mask_secrets",
]

NOTHING = "–"
MASK = "••• (not shown)"

# A word, a single CJK character (those scripts write no spaces), or a run of punctuation.
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s]+")
_MOST_TOKENS = 800
_LONG_RUN, _RUN_ENDS = 30, 10

_SECRET_PARTS = {"token", "password", "passwd", "passphrase", "secret", "secrets", "authorization"}
_SECRET_PARTS |= {"auth", "bearer", "cookie", "cookies", "credential", "credentials", "apikey"}
_SECRET_PARTS |= {"header", "headers"}
_SECRET_KEY = re.compile(r"(^|_)(api|access|secret|private|account|subscription|auth)_?keys?(_|$)")
_KEY_SHAPED = re.compile(
    r"(?i:\bbearer\s+\S+)|\b(?:sk|pk|rk|hf|gh[opsu]|xox[abp]|gsk)[-_][A-Za-z0-9_-]{12,}"
    r"|\bAKIA[A-Z0-9]{12,}|\bAIza[\w-]{20,}"
)
_IN_URL = re.compile(r"(?<=://)[^/\s@]+@")
_IN_QUERY = re.compile(r"(?i)([?&](?:[\w-]*(?:key|token|secret|password|sig|signature))=)[^&#\s]+")
_ENVIRONMENT_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


def _missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def as_percent(value: float | None, digits: int = 1) -> str:
    """0.8731 -> ``87.3 %``; an absent number is a dash."""
    return NOTHING if value is None or _missing(value) else f"{100 * value:.{digits}f}\u00a0%"


def as_points(value: float | None) -> str:
    """A difference of two shares in percentage points, with its sign: 0.021 -> ``+2.1``."""
    if value is None or _missing(value):
        return NOTHING
    text = f"{100 * value:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", "−")


def as_interval(low: float | None, high: float | None) -> str:
    """The ends of an interval of shares, in percent: ``84.9–89.5``; a dash where there is none."""
    if low is None or high is None or _missing(low) or _missing(high):
        return NOTHING
    return f"{100 * low:.1f}–{100 * high:.1f}"


def as_count(value: float | None) -> str:
    """1234567 -> ``1,234,567``."""
    return NOTHING if value is None or _missing(value) else f"{int(value):,}"


def counted(n: int, word: str) -> str:
    """A count with its noun: ``1 row``, ``1,234 rows``."""
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def as_number(value: float | None, digits: int = 2) -> str:
    """A plain number with ``digits`` decimals."""
    return NOTHING if value is None or _missing(value) else f"{value:.{digits}f}".replace("-", "−")


def as_money(value: float | None) -> str:
    """US dollars; small sums keep enough digits not to read as nothing."""
    if value is None or _missing(value):
        return NOTHING
    return f"${value:,.2f}" if value == 0 or value >= 0.1 else f"${value:.4f}"


def as_duration(seconds: float | None) -> str:
    """Seconds as a person says them: ``0.4 s``, ``3 min 12 s``, ``2 h 05 min``."""
    if seconds is None or _missing(seconds):
        return NOTHING
    if seconds < 59.5:
        return f"{seconds:.1f}\u00a0s" if seconds < 9.95 else f"{seconds:.0f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\u00a0min {rest:02d}\u00a0s"
    return f"{minutes // 60}\u00a0h {minutes % 60:02d}\u00a0min"


def clean(text: str) -> str:
    """Replace characters that HTML forbids (control characters other than tab and newline)."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "�", text)


def clip(text: str | None, limit: int = 600) -> str:
    """``text`` cut after ``limit`` characters, saying how long it was; an absent text is a dash."""
    if text is None:
        return NOTHING
    if len(text) <= limit:
        return clean(text)
    return f"{clean(text[:limit]).rstrip()} … ({len(text):,} characters in all)"


def _tokens(text: str) -> tuple[list[tuple[str, str]], Markup]:
    """Return (gap, token) pairs, and a note to show where the text was cut.

    The gap is a space where white space stood before the token.
    """
    found: list[tuple[str, str]] = []
    end = 0
    # Most tokens are short: cutting the text first keeps a megabyte row from being scanned.
    head = clean(text[: 20 * _MOST_TOKENS])
    for match in _TOKEN.finditer(head):
        if len(found) == _MOST_TOKENS:
            break
        found.append((" " if match.start() > end and found else "", match.group()[:200]))
        end = match.end()
    whole = len(text) <= len(head) and not _TOKEN.search(head, end)
    return found, Markup("" if whole else ' <span class="left-out">… (cut)</span>')


def _plain(tokens: list[tuple[str, str]]) -> Markup:
    """Escape a run that both texts share; the middle of a long one is left out."""
    if len(tokens) > _LONG_RUN:
        left_out = len(tokens) - 2 * _RUN_ENDS
        note = Markup('<span class="left-out"> … {} words … </span>').format(left_out)
        return _plain(tokens[:_RUN_ENDS]) + note + _plain(tokens[-_RUN_ENDS:])
    return escape("".join(gap + token for gap, token in tokens))


def _marked(tokens: list[tuple[str, str]]) -> Markup:
    if not tokens:
        return Markup("")
    text = clip("".join(gap + token for gap, token in tokens).lstrip(), 1200)
    return Markup("{}<mark>{}</mark>").format(tokens[0][0], text)


def mark_differences(one: str, other: str) -> tuple[Markup, Markup]:
    """Both texts as HTML, escaped, with the words that the other lacks inside ``<mark>``.

    Words are compared exactly, case included. Long runs of equal words are shortened, and only
    the first 800 words of each text are compared, so the cost is bounded for any input.
    """
    (left, left_note), (right, right_note) = _tokens(one), _tokens(other)
    matcher = difflib.SequenceMatcher(
        None, [token for _, token in left], [token for _, token in right], autojunk=False
    )
    shown_left, shown_right = Markup(""), Markup("")
    for kind, a, b, c, d in matcher.get_opcodes():
        show = _plain if kind == "equal" else _marked
        shown_left += show(left[a:b])
        shown_right += show(right[c:d])
    return shown_left + left_note, shown_right + right_note


def _is_secret(key: str) -> bool:
    """Whether a recipe key holds a secret: ``api_key``, ``hf-token``, ``extraHeaders``, ``key``;
    not ``max_tokens`` or ``answer_key``.
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower()
    words = re.sub(r"[^a-z0-9]+", "_", words)
    if words == "key" or _SECRET_KEY.search(words):
        return True
    return bool(_SECRET_PARTS & set(words.split("_")))


def mask_secrets(value: Any, key: str = "") -> Any:
    """A copy of a recipe with every secret replaced by a mask.

    Values under a key that names a secret go whole, whatever their shape, except the name of an
    environment variable under a key that ends in ``_env``. Elsewhere, what looks like a key, a
    bearer token, or a password inside a URL is masked within the text.
    """
    if key and _is_secret(key) and value is not None:
        named = key.lower().endswith("_env") and isinstance(value, str)
        return value if named and _ENVIRONMENT_NAME.fullmatch(value) else MASK
    if isinstance(value, dict):
        return {_mask_text(str(k)): mask_secrets(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [mask_secrets(item) for item in value]
    return _mask_text(value) if isinstance(value, str) else value


def _mask_text(text: str) -> str:
    text = _IN_URL.sub("•••@", text)
    text = _IN_QUERY.sub(r"\1•••", text)
    return _KEY_SHAPED.sub("•••", text)
