"""From an objective's name and settings to what is minimised, with everything checked first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from student.errors import InputError
from student.examples import Example
from student.objectives import Objective, label_only, multitask
from student.soft_labels import soft_label
from student.white_box import WhiteBox, white_box_loss

if TYPE_CHECKING:
    from student.white_box import Teacher

__all__ = ["Choice", "check_rows", "choose_objective", "with_label_set"]

_RATIONALE_IN = {"rationale_then_label": "target", "rationale_as_input": "input"}
_TEMPERATURE = {"soft_label": 1.0, "white_box": 2.0}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An objective's name and all its settings, checked against one another.

    Raises `InputError` where a setting belongs to another objective: it would be without effect.
    """

    name: str
    alpha: float = 0.5
    soft_weight: float = 0.5
    temperature: float | None = None
    shared_encoder: bool = False
    white_box: WhiteBox | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check the settings, and take `white_box` as a mapping too."""
        if isinstance(self.white_box, Mapping):
            object.__setattr__(self, "white_box", _white_box(self.white_box))
        if (self.name == "white_box") != (self.white_box is not None):
            raise InputError(
                "objective='white_box' and the argument white_box go together: give "
                "white_box=WhiteBox(teacher=...), or another objective without it "
                f"(objective={self.name!r})"
            )
        if self.shared_encoder and self.name != "multitask":
            raise InputError(
                f"shared_encoder=True with objective={self.name!r}, which has one task only; it is for "
                "objective='multitask'"
            )
        if self.temperature is not None and self.name not in _TEMPERATURE:
            raise InputError(
                f"temperature={self.temperature} with objective={self.name!r}, which has no teacher's "
                "distribution to soften; it is for 'soft_label' and 'white_box'"
            )

    @property
    def rationale_in(self) -> str:
        """Where the rationale stands; see `Formatting`."""
        return _RATIONALE_IN.get(self.name, "task")

    @property
    def label_prefix(self) -> str:
        """What stands before the text by default: "[label] " only where a second task has another."""
        return "[label] " if self.name == "multitask" and not self.shared_encoder else ""

    @property
    def softness(self) -> float:
        """The temperature: 1 for soft labels, 2 for a white-box teacher, unless one was given."""
        return self.temperature or _TEMPERATURE.get(self.name, 1.0)

    @property
    def is_soft(self) -> bool:
        """Whether a teacher's distribution is learnt."""
        return self.name in _TEMPERATURE

    def told(self) -> dict[str, Any]:
        """Return the settings that this objective has, for student.json and the model card."""
        found: dict[str, Any] = {}
        if self.name == "multitask":
            found = {"alpha": self.alpha}
        if self.name in _TEMPERATURE:
            found = {"soft_weight": self.soft_weight, "temperature": self.softness}
        if isinstance(self.white_box, WhiteBox):
            place = Path(self.white_box.teacher)
            # A folder's name: its path would tell others about this machine only.
            teacher = place.name if place.is_dir() else str(self.white_box.teacher)
            cached = {"cache": self.white_box.cache is not None}
            found["white_box"] = asdict(self.white_box) | {"teacher": teacher} | cached
        return found


def choose_objective(
    choice: Choice, *, rationale_start: int | None = None, teacher: Teacher | None = None
) -> Objective:
    """Return the objective with its settings filled in.

    `rationale_start` is the task token of a shared encoder's rationale, `teacher` the white-box
    teacher.
    """
    if choice.name == "multitask":
        start = rationale_start if choice.shared_encoder else None
        return partial(multitask, alpha=choice.alpha, rationale_start=start)
    if choice.name == "soft_label":
        return partial(soft_label, soft_weight=choice.soft_weight, temperature=choice.softness)
    if isinstance(choice.white_box, WhiteBox) and teacher is not None:
        return partial(
            white_box_loss,
            teacher=teacher,
            kind=choice.white_box.divergence,
            beta=choice.white_box.beta,
            temperature=choice.softness,
            soft_weight=choice.soft_weight,
        )
    return label_only


def check_rows(choice: Choice, training: Sequence[Example]) -> None:
    """Raise `InputError` where the training rows lack what the objective learns from."""
    if choice.name in ("multitask", *_RATIONALE_IN) and not any(e.rationale for e in training):
        raise InputError(
            f"objective={choice.name!r} needs a rationale column with texts and no training row has "
            "one; ask the teacher for rationales, or use objective='label'"
        )
    if choice.name == "soft_label" and not any(e.label_probs and e.choices for e in training):
        raise InputError(
            "objective='soft_label' needs a column label_probs, one probability for each of the row's "
            "choices, and no training row has it; label with a teacher that gives probabilities, or use "
            "objective='label'"
        )


def with_label_set(examples: Sequence[Example], labels: Sequence[str] | None) -> list[Example]:
    """Return the examples with `labels` as choices where a row has none of its own."""
    own = tuple(labels) if labels is not None else None
    return [e if e.choices else replace(e, choices=own) for e in examples]


def _white_box(settings: Mapping[str, Any]) -> WhiteBox:
    known = list(WhiteBox.__dataclass_fields__)
    unknown = [name for name in settings if name not in known]
    if unknown or "teacher" not in settings:
        wrong = f"has {unknown[0]!r}" if unknown else "names no teacher"
        raise InputError(f"white_box {wrong}; its settings are {', '.join(known)}")
    return WhiteBox(**settings)
