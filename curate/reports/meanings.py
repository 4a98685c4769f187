"""What each reason for a drop means, in a sentence for the reader of a report."""

from __future__ import annotations

__all__ = ["MEANINGS"]

MEANINGS = {
    "unlabelled": "The teacher gave no label that could be read.",
    "review": "A person left it out.",
    "exact_duplicate": "The text and label of a row that stays, case and spacing set aside.",
    "near_duplicate": "Most of its words are those of a row that stays, with the same label.",
    "semantic_duplicate": "By its embedding it means what a row that stays means.",
    "contamination": "It shares long passages with a test row: training on it would leak.",
    "semantic_contamination": "By its embedding it means what a test row means: it would leak.",
    "too_short": "It has fewer words than the recipe asks.",
    "too_long": "It has more words than the recipe allows.",
    "language": "It does not read like the language that the recipe asks for.",
    "refusal": "The teacher declined to answer.",
    "truncated": "The teacher's answer was cut off.",
    "residue": "Scaffolding of a prompt or template is left in the text.",
    "echo": "The rationale repeats the input or the instruction.",
    "repetition": "The text repeats itself.",
    "personal_data": "It holds what looks like personal data.",
    "unknown_label": "Its label is none of the allowed ones.",
    "confidence": "The teacher was less sure of its label than the recipe asks.",
    "margin": "The teacher's two likeliest labels were too close to each other.",
    "entropy": "The teacher's probabilities were spread over too many labels.",
    "agreement": "The teacher's votes agreed too little.",
    "label_noise": "Its label is probably wrong: rows like it speak against it.",
    "unsupported": "Such a rationale leads to another label in other rows.",
    "other_choice": "The rationale names another choice than the label.",
    "restatement": "The rationale says no more than the input.",
    "copied": "The rationale is copied from a demonstration.",
    "arithmetic": "The rationale's sums are false, or do not lead to the label.",
    "judge": "The judge gave it too low a grade.",
    "perplexity": "To a language model the text is too unlikely.",
    "ensemble": "Several scores together speak against it.",
    "rebalance": "Its label or cluster had more rows than its share.",
    "select": "The budget of rows was spent on others.",
}
