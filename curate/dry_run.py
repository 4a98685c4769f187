"""``curate label --dry-run``: what a recipe's teacher would be asked, and what that would cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import labelers
from curate import assets
from curate.demonstrations import choose_demonstrations
from curate.labeling import member_task
from curate.offline_assets import ALIASES, BUILT_IN
from curate.recipe import Recipe, load_recipe
from curate.recipe_teachers import (
    AskedSection,
    CascadeSection,
    EnsembleSection,
    LlamaCppSection,
    RecordedSection,
    VLLMSection,
)
from curate.sources import load_examples
from curate.stages import no_progress
from curate.teachers import build_teacher
from labelers.prices import TABLE

if TYPE_CHECKING:
    import pandas as pd

    from labelers.listening import PhaseQuote

_CALIBRATIONS = ("batch", "contextual")
#: Keys of a teacher's section that are arguments of a quote under the same name.
_ASKING = (
    "mode", "probabilities", "samples", "temperature", "vote", "rationales", "max_tokens",
    "max_rationale_tokens",
)  # fmt: skip


def dry_run(recipe: Path, *, overrides: Sequence[str] = (), store: Path | None = None) -> str:
    """What ``curate label`` would ask, as text. Nothing is sent, and nothing is written.

    Args:
        recipe: The recipe's file.
        overrides: ``key=value`` pairs, as given to ``--set``.
        store: Folder of the teacher's exchanges; by default ``.curate`` beside the recipe.

    Raises:
        ValueError, RuntimeError: As for :func:`curate.label`.
    """
    checked = load_recipe(recipe, overrides=overrides)
    base = recipe.resolve().parent
    recorded = getattr(checked.teacher, "column", None)
    examples = load_examples(
        checked.data, checked.task.task(), folder=base, seed=checked.seed,
        separator=checked.task.separator,
        keep_columns=(recorded,) if recorded else (),
    )  # fmt: skip
    splits = {str(name): int(n) for name, n in examples["split"].value_counts().items()}
    told = [f"{len(examples):,} rows: {', '.join(f'{n:,} {name}' for name, n in splits.items())}"]
    if (wanted := checked.generate) is not None:
        rows = sum(wanted.labels.values())
        told.append(
            f"{rows:,} rows are to be generated first, in up to {wanted.max_requests or 4 * rows:,} "
            "requests: neither these nor the labels of the new rows are in the figures below"
        )
    for section, task, note in _asked(checked):
        told.append("")
        if isinstance(section, RecordedSection):
            told.append(
                f"the teacher {section.name!r} is recorded: there is nothing to ask, and nothing to pay"
            )
            continue
        store_folder = store if store is not None else base / ".curate"
        quote, notes = _quote(examples, checked, task, section, base=base, store=store_folder)
        free = isinstance(section, (LlamaCppSection, VLLMSection)) and quote.prices is None
        told += quote_lines(quote, free=free, notes=[*note, *notes])
    return "\n".join([*told, "", "nothing was sent"])


def _asked(recipe: Recipe) -> Iterator[tuple[Any, labelers.Task, list[str]]]:
    """Each teacher of the recipe, the task as it is put to it, and what is to be said of its quote."""
    teacher, task = recipe.teacher, recipe.task.task()
    if isinstance(teacher, EnsembleSection):
        for member in teacher.members:
            yield member.teacher, member_task(recipe, member), []
    elif isinstance(teacher, CascadeSection):
        yield teacher.cheap, task, []
        note = "asked only where the cheap teacher is not sure: these figures are for all rows"
        yield teacher.dear, task, [note]
    else:
        yield teacher, task, []


def _quote(
    examples: pd.DataFrame,
    recipe: Recipe,
    task: labelers.Task,
    section: Any,
    *,
    base: Path,
    store: Path,
) -> tuple[labelers.Quote, list[str]]:
    teacher, notes = _teacher(section, base, store)
    shown = None
    if section.demonstrations.written or section.demonstrations.choose == "similar":
        # Writing them asks the teacher, and choosing similar ones may fetch an embedder.
        notes.append("the prompts show the task's own demonstrations: rows will be shown others")
    else:
        task, shown, _ = choose_demonstrations(
            examples, section, task, teacher, recipe,
            base=base, store=store, limits=labelers.Limits(), on_progress=no_progress,
        )  # fmt: skip
    found = labelers.quote(
        examples.drop(columns=["gold"]),
        task,
        teacher,
        store=store,
        tokenizer=_tokenizer(section.model, base),
        calibration=section.calibration if section.calibration in _CALIBRATIONS else None,
        demonstrations=shown,
        redact=recipe.privacy.redaction().redact if recipe.privacy else None,
        **{name: getattr(section, name) for name in _ASKING},
    )
    if found.prices is not None and section.prices is None:
        found = replace(found, prices_from=TABLE)
    return found, notes


def _teacher(section: AskedSection, base: Path, store: Path) -> tuple[Any, list[str]]:
    """A section's teacher, or what can be known of one whose file would first have to be fetched."""
    if not isinstance(section, LlamaCppSection) or not _must_be_fetched(section.model):
        return build_teacher(section, base=base, store=store), []
    absent = SimpleNamespace(
        name=section.model, model=section.model, identity={"gguf_sha256": "not known"},
        api=section.api, prefill=section.api == "completions", top_logprobs=20,
        prices=section.prices.prices() if section.prices else None, concurrency=section.slots,
    )  # fmt: skip
    return absent, [
        f"the model {section.model} is not on this machine: `curate label` fetches it first; whether the "
        "store has its answers cannot be told before"
    ]


def _must_be_fetched(reference: str) -> bool:
    """Whether a teacher's file is one to be downloaded, and is not here yet."""
    name = ALIASES.get(reference, reference)
    if name in BUILT_IN:
        folder = assets.cache_folder() / "assets" / BUILT_IN[name].folder_name
        return not (folder / "contents.json").exists()
    parts = reference.removeprefix("hf:").split("/", 2)
    if reference.startswith("hf:") and len(parts) == 3:
        return _cached(f"{parts[0]}/{parts[1]}", parts[2]) is None
    return False


def _cached(repository: str, file: str) -> str | None:
    """A file of a Hub repository, if it was fetched before; no network is used."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, file)
    except HFValidationError:
        return None
    return found if isinstance(found, str) else None


def _tokenizer(model: str, base: Path) -> str | None:
    """The teacher's own tokenizer, where it lies on this machine."""
    beside = base / Path(model).expanduser() / "tokenizer.json"
    if beside.is_file():
        return str(beside)
    return _cached(model, "tokenizer.json") if model.count("/") == 1 else None


# ---------------------------------------------------------------------------------------- output


def quote_lines(
    quote: labelers.Quote, *, free: bool = False, notes: Sequence[str] = ()
) -> Iterator[str]:
    """A quote as a person reads it: the prompts in full, then the figures."""
    for number, prompt in enumerate(quote.prompts, 1):
        yield f"--- prompt {number} of {len(quote.prompts)} shown\n{prompt}\n"
    facts = [
        ("teacher", quote.teacher),
        ("labels", _requests(quote.label)),
    ]
    if quote.rationale.requests:
        facts.append(("rationales", f"{_requests(quote.rationale)}, at most"))
    facts += [
        ("prompt tokens", f"{quote.prompt_tokens:,}, {quote.counted_by}"),
        ("completion tokens", _completions(quote)),
        ("cost", "free: it runs on this machine" if free else _cost(quote)),
        ("time", _time(quote)),
    ]
    yield from (f"{name:<18} {value}" for name, value in facts)
    yield from (f"note: {note}" for note in (*quote.notes, *notes))


def _requests(phase: PhaseQuote) -> str:
    parts = [f"{phase.requests:,} requests"]
    if phase.paid:
        parts.append(f"{phase.paid:,} in the store already")
    if phase.repeated:
        parts.append(f"{phase.repeated:,} equal to another")
    return f"{', '.join(parts)}: {phase.to_ask:,} to ask"


def _completions(quote: labelers.Quote) -> str:
    most = f"{quote.completion_tokens:,} at most"
    if not quote.to_ask:
        return most
    if quote.expected_completion_tokens is None:
        return f"{most}; no stored answers tell how many to expect"
    return (
        f"{most}; {quote.expected_completion_tokens:,} expected, by the mean of stored answers to such "
        "requests"
    )


def _cost(quote: labelers.Quote) -> str:
    if quote.cost_usd is None:
        return "not known: no prices; give teacher.prices"
    expected = quote.expected_cost_usd
    told = "" if expected is None else f", {_dollars(expected)} expected"
    return (
        f"{_dollars(quote.cost_usd)} at most{told}; {_dollars(quote.batch_cost_usd or 0.0)} at most as a "
        f"batch (half); prices {quote.prices_from}"
    )


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 1 or not amount else f"${amount:.2g}"


def _time(quote: labelers.Quote) -> str:
    if not quote.to_ask:
        return "none: every answer is in the store"
    if quote.seconds is None or quote.rate is None:
        return "not known: this teacher was not measured here; label some rows with --set data.limit=50"
    return f"about {_duration(quote.seconds)}, at {quote.rate:,.3g} answers a second as in the newest run"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds" if seconds >= 1.5 else "a second"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
