"""A corpus with known duplicates, of any size: template-like texts of 16 to 90 words with labels.

Seven in ten rows are bases, each a group of its own. The others are made from a base:

    exact       the same text
    case        other capitals, spaces or punctuation
    small       one or two words replaced
    tenth       one word in ten replaced
    truncated   the last 5 to 25 % of the words cut off
    paraphrase  every sentence in another wording, the facts the same
    contrast    the word that carries the verdict flipped, and the label with it: these must stay

No base has more than one such row, except that every tenth contrast row has an exact copy. So of a base and
its row (contrast apart) exactly one should survive, and no (group, label) should be left without a row. Every
sentence holds a name of two made-up words, so that two bases do not become duplicates by chance.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence

import pandas as pd

SHARES = {
    "exact": 0.05, "case": 0.04, "small": 0.05, "tenth": 0.05, "truncated": 0.04,
    "paraphrase": 0.03, "contrast": 0.04,
}  # fmt: skip

# Two wordings of the same facts. {name} is from an open vocabulary, {verdict} carries the label.
PLAIN = [
    ("We bought the {name} {thing} for our {place} this {time}.",
     "For our {place} we got ourselves a {thing} by {name} this {time}."),
    ("The {part} of the {name} is made of {stuff} and weighs {number} grams.",
     "Made of {stuff}, its {part} brings {number} grams onto the scales, says {name}."),
    ("My {person} {name} uses it {often} in the {place}.",
     "In the {place} it serves {name}, my {person}, {often}."),
    ("According to {name} the {part} should be replaced after {number} hours.",
     "{name} advises a new {part} once {number} hours have passed."),
    ("It arrived from {name} within {number} days, together with a spare {part}.",
     "After {number} days a parcel from {name} came, a second {part} included."),
    ("Compared with the older {thing} by {name}, the {part} sits {degree} closer to the {other}.",
     "The {part} has moved {degree} nearer to the {other} since the earlier {name} {thing}."),
    ("When the {part} gets {state}, the light next to {name} turns {colour} for a moment.",
     "A {colour} light beside {name} comes on briefly whenever the {part} becomes {state}."),
    ("A {person} at {name} told us that the {other} had been tested {number} times.",
     "They ran {number} tests on the {other}, we heard from a {person} who works for {name}."),
    ("Setting the {part} to {number} made {name} a little more {state} than before.",
     "With {number} on the {part}, {name} became slightly more {state}."),
    ("The manual, written by {name}, explains on page {number} how the {part} is cleaned.",
     "How to clean the {part} stands on page {number} of {name}'s instructions."),
    ("Our {colour} {thing} stands in the {place} beside a {other} from {name}.",
     "Next to the {other} that {name} made, the {place} holds our {thing} in {colour}."),
    ("Every {time} the {person} carries {name} from the {place} to the garage.",
     "From the {place} to the garage: that is the way {name} travels with the {person} each {time}."),
]  # fmt: skip
PLAIN += [
    ("{name} sent us a spare {part}.", "A second {part} came from {name}."),
    ("We keep it in the {place} with {name}.", "With {name} it stays in the {place}."),
]
JUDGING = [
    ("All in all the {name} has been {verdict}, though we use it {often}.",
     "Used {often} as it is, {name} is {verdict} in the end."),
    ("After {number} weeks we find its {part} {verdict}, and {name} agrees.",
     "{name} and we both call the {part} {verdict}, {number} weeks on."),
    ("My {person} {name} calls the {thing} simply {verdict} in a {place} like ours.",
     "In a {place} like ours the {thing} is {verdict}, if you ask my {person} {name}."),
    ("The service at {name} was {verdict} when the {part} had to be exchanged last {time}.",
     "{verdict} is the word for how {name} dealt with the exchange of the {part} last {time}."),
]  # fmt: skip
WORDS = {
    "thing": "camera kettle lamp printer blender heater speaker vacuum toaster scanner drill mixer "
    "router monitor keyboard tent backpack bicycle stove grinder",
    "part": "battery handle lens hinge filter cable lid button screen motor blade strap wheel knob "
    "sensor switch valve nozzle zip socket",
    "other": "window table shelf counter bench cabinet dresser ladder fence trolley",
    "place": "kitchen workshop office cellar attic classroom studio cabin bakery library",
    "time": "morning evening winter summer weekend holiday spring autumn month afternoon",
    "stuff": "steel glass bamboo rubber aluminium nylon leather ceramic copper oak",
    "person": "neighbour sister uncle colleague teacher grandmother friend cousin nurse plumber",
    "often": "daily weekly rarely constantly sometimes monthly twice frequently hourly nightly",
    "degree": "slightly noticeably visibly hardly somewhat markedly much clearly barely rather",
    "state": "warm loose dusty wet noisy stiff slippery quiet sticky brittle",
    "colour": "green amber violet white orange blue grey pink red turquoise",
}
VERDICTS = {
    "excellent": "terrible", "reliable": "unreliable", "superb": "dreadful", "pleasant": "unpleasant",
    "useful": "useless", "outstanding": "miserable", "flawless": "faulty", "helpful": "unhelpful",
}  # fmt: skip
_OPPOSITE = VERDICTS | {bad: good for good, bad in VERDICTS.items()}
_CHOICES = {slot: words.split() for slot, words in WORDS.items()}
_FILLERS = [word for words in _CHOICES.values() for word in words]
_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]


class _Values(dict[str, str]):
    """Fills a template's slots as they are met, each from its list."""

    def __init__(self, draw: random.Random, verdict: str) -> None:
        super().__init__(verdict=verdict)
        self.draw = draw

    def __missing__(self, slot: str) -> str:
        if slot == "name":
            first, last = self.draw.choices(_SYLLABLES, k=3), self.draw.choices(_SYLLABLES, k=3)
            value = f"{''.join(first).capitalize()} {''.join(last).capitalize()}"
        elif slot == "number":
            value = str(self.draw.randrange(3, 990))
        else:
            value = self.draw.choice(_CHOICES[slot])
        self[slot] = value
        return value


def _base(draw: random.Random) -> tuple[str, str, str]:
    """(text, the same in another wording, verdict)."""
    verdict = draw.choice(list(_OPPOSITE))
    patterns = draw.sample(PLAIN, draw.randrange(1, 7))
    patterns.insert(draw.randrange(len(patterns) + 1), draw.choice(JUDGING))
    one, other = [], []
    for first, second in patterns:
        values = _Values(draw, verdict)
        one.append(first.format_map(values))
        other.append(second.format_map(values))
    text = " ".join(one)
    if not 16 <= len(text.split()) <= 90:
        return _base(draw)
    return text, " ".join(other), verdict


def _replace(draw: random.Random, text: str, count: int, verdict: str) -> str:
    words = text.split()
    # The word that carries the label is left alone: flipping it is for contrast rows.
    free = [place for place, word in enumerate(words) if word.strip(".,") != verdict]
    for place in draw.sample(free, count):
        words[place] = draw.choice([w for w in draw.sample(_FILLERS, 2) if w != words[place]])
    return " ".join(words)


def _vary(draw: random.Random, kind: str, text: str, other: str, verdict: str) -> str:
    words = text.split()
    if kind == "exact":
        return text
    if kind == "case":
        return draw.choice(
            [text.upper(), text.lower(), text.replace(". ", " .  "), text.rstrip(".") + "!!"]
        )
    if kind == "small":
        return _replace(draw, text, draw.randrange(1, 3), verdict)
    if kind == "tenth":
        return _replace(draw, text, max(1, round(len(words) / 10)), verdict)
    if kind == "truncated":
        return " ".join(words[: round(len(words) * draw.uniform(0.75, 0.95))])
    if kind == "paraphrase":
        return other
    return text.replace(verdict, _OPPOSITE[verdict])


def make_corpus(rows: int, seed: int = 0) -> pd.DataFrame:
    """Return shuffled rows: id, input, label, kind ("base" or as above), group (a number)."""
    draw = random.Random(seed)
    kinds, cumulative = list(SHARES), [sum(list(SHARES.values())[: i + 1]) for i in range(7)]
    made: list[tuple[str, str, str, int]] = []
    group = 0
    per_base = sum(SHARES.values()) / (1 - sum(SHARES.values()))  # rows made from a base, per base
    while len(made) < rows:
        text, other, verdict = _base(draw)
        label = "positive" if verdict in VERDICTS else "negative"
        made.append((text, label, "base", group))
        if draw.random() < per_base:
            kind = draw.choices(kinds, cum_weights=cumulative)[0]
            flipped = {"positive": "negative", "negative": "positive"}[label]
            theirs = flipped if kind == "contrast" else label
            made.append((_vary(draw, kind, text, other, verdict), theirs, kind, group))
            if kind == "contrast" and draw.random() < 0.1:
                made.append((made[-1][0], theirs, "exact", group))
        group += 1
    del made[rows:]
    draw.shuffle(made)
    frame = pd.DataFrame(made, columns=["input", "label", "kind", "group"])
    frame.insert(0, "id", [f"row-{number:08d}" for number in range(len(frame))])
    return frame


def plant(texts: Sequence[str], labels: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """Plant the same kinds of rows, paraphrases apart, among texts that are given.

    A contrast row has another word in one place, and another of the labels.
    """
    draw = random.Random(seed)
    kinds, distinct = [kind for kind in SHARES if kind != "paraphrase"], sorted(set(labels))
    made: list[tuple[str, str, str, int]] = []
    for group, (text, label) in enumerate(zip(texts, labels, strict=True)):
        made.append((text, label, "base", group))
        if draw.random() >= 0.4 or len(text.split()) < 3:
            continue
        kind = draw.choice(kinds)
        if kind == "contrast":
            theirs = draw.choice([other for other in distinct if other != label])
            made.append((_replace(draw, text, 1, ""), theirs, kind, group))
        else:
            made.append((_vary(draw, kind, text, "", ""), label, kind, group))
    draw.shuffle(made)
    frame = pd.DataFrame(made, columns=["input", "label", "kind", "group"])
    frame.insert(0, "id", [f"row-{number:08d}" for number in range(len(frame))])
    return frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int)
    parser.add_argument("output", help="a Parquet file")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    make_corpus(chosen.rows, chosen.seed).to_parquet(chosen.output, index=False)


if __name__ == "__main__":
    main()
