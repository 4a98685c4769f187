"""``curate log``: the store of teacher exchanges as a person reads it."""

from __future__ import annotations

import json
import math
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from labelers.exchange_log import Selection
    from labelers.exchanges import Exchange
    from labelers.store import Store
    from labelers.teachers import Prices

F = TypeVar("F", bound=Callable[..., Any])


def _moment(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """A date, or date and time, in UTC where no zone is named."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r}: write a date such as 2026-05-01, or 2026-05-01T14:30"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _two_prices(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    try:
        prompt, completion = (float(part) for part in value.split(","))
    except ValueError:
        prompt = completion = -1.0
    if not (0 <= prompt < math.inf and 0 <= completion < math.inf):
        raise click.BadParameter(
            f"{value!r}: write US dollars per million prompt and completion tokens, such as 0.15,0.60"
        )
    return prompt, completion


_STORE = click.option(
    "--store", type=click.Path(path_type=Path), metavar="FOLDER", default=Path(".curate"),
    show_default=True, help="Where teacher exchanges are kept.",
)  # fmt: skip
_RUN = click.option("--run", metavar="NAME", help="Only what this run asked.")
_TEACHER = click.option(
    "--teacher", metavar="NAME", help="Only this model, or this value of a teacher's identity."
)
_SINCE = click.option(
    "--since", callback=_moment, metavar="DATE", help="Only answers from this date on (UTC)."
)
_LIMIT = click.option(
    "--limit", type=click.IntRange(1), default=20, show_default=True, metavar="N",
    help="Show so many of the newest.",
)  # fmt: skip


def _selecting(command: F) -> F:
    for option in (_SINCE, _TEACHER, _RUN, _STORE):
        command = option(command)
    return command


@click.group()
def log() -> None:
    """Look into the store of what the teacher was asked and said."""


@log.command("list")
@_selecting
@_LIMIT
def list_(store: Path, limit: int, **chosen: Any) -> None:
    """List exchanges, the newest last."""
    from labelers.exchange_log import newest, select

    with _open(store) as opened:
        found = newest(select(opened, _selection(**chosen)), limit)
        _print_lines(opened, found, "no exchange is as was asked")


@log.command()
@click.argument("key")
@_STORE
@click.option("--json", "as_json", is_flag=True, help="Print the whole exchange as JSON.")
def show(key: str, store: Path, as_json: bool) -> None:
    """Show one exchange in full. The beginning of its KEY is enough."""
    from labelers.exchange_log import find

    with _open(store) as opened:
        exchange = find(opened, key)
    if as_json:
        click.echo(json.dumps(vars(exchange), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_shown(exchange)))


@log.command()
@click.argument("text")
@_selecting
@_LIMIT
def search(text: str, store: Path, limit: int, **chosen: Any) -> None:
    """Find TEXT in prompts and answers; case does not matter."""
    from labelers.exchange_log import newest
    from labelers.exchange_log import search as find_all

    with _open(store) as opened:
        found = newest(find_all(opened, text, _selection(**chosen)), limit)
        _print_lines(opened, found, f"no prompt or answer holds {text!r}")


@log.command()
@click.argument("file", type=click.Path(path_type=Path))
@_selecting
@click.option(
    "--sample", type=click.IntRange(0), metavar="N",
    help="Of repeated requests, only the answers with this index.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def export(file: Path, store: Path, sample: int | None, force: bool, **chosen: Any) -> None:
    """Write exchanges to a JSONL FILE, which can be imported and replayed."""
    from curate.exceptions import CurateError
    from labelers.exchange_files import export_exchanges

    if file.exists() and not force:
        raise CurateError(f"{file} is there already: name another file, or replace it with --force")
    with _open(store) as opened:
        written = export_exchanges(opened, file, _selection(**chosen), sample=sample)
        click.echo(f"{_count(written, 'exchange')}: {file}")
        _tell_damaged(opened.damaged)


@log.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@_STORE
def import_(file: Path, store: Path) -> None:
    """Take the exchanges of an exported JSONL FILE into the store."""
    from labelers.exchange_files import import_exchanges
    from labelers.store import Store

    with Store(store) as opened:
        done = import_exchanges(opened, file)
        known = f"; {done.known:,} were there already" if done.known else ""
        click.echo(f"{_count(done.added, 'exchange')} imported into {store}{known}")


@log.command()
@_STORE
@click.option("--before", callback=_moment, metavar="DATE", help="Answers before this date (UTC).")
@_TEACHER
@_RUN
@click.option("--damaged", is_flag=True, help="Lines that cannot be read.")
@click.option(
    "--keep-last", type=click.IntRange(0), metavar="N",
    help="Keep the newest N of those meant; alone, of all.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(
    store: Path, damaged: bool, keep_last: int | None, dry_run: bool, yes: bool, **chosen: Any
) -> None:
    """Take exchanges out for good; asked again, they are paid for again."""
    from labelers import pruning

    how = {"damaged": damaged, "keep_last": keep_last}
    with _open(store) as opened:
        selection = _selection(**chosen)
        plan = pruning.prune(opened, selection, **how, dry_run=True)  # type: ignore[arg-type]
        click.echo(_pruned_text("would go" if dry_run else "will go", plan))
        if dry_run or not (plan.exchanges or plan.damaged):
            return
        if not yes:
            click.confirm("Take them out of the store for good?", abort=True)
        done = pruning.prune(opened, selection, **how)  # type: ignore[arg-type]
        click.echo(_pruned_text("are gone", done))


@log.command()
@_selecting
@click.option(
    "--prices", callback=_two_prices, metavar="PROMPT,COMPLETION",
    help="US dollars per million tokens, such as 0.15,0.60.",
)  # fmt: skip
def cost(store: Path, prices: tuple[float, float] | None, **chosen: Any) -> None:
    """Add up answers, tokens and cost by run and teacher."""
    from labelers.exchange_log import costs
    from labelers.teachers import Prices

    with _open(store) as opened:
        paid: Prices | None = Prices(*prices) if prices else None
        found = costs(opened, _selection(**chosen), prices=paid)
    if not found.runs:
        click.echo("no exchange is as was asked")
    else:
        click.echo(_cost_table(found.runs))
        if uncounted := sum(run.uncounted for run in found.runs):
            click.echo(
                f"{_count(uncounted, 'answer')} came without a count of tokens and add nothing to the "
                "sums",
                err=True,
            )
        if paid is None:
            click.echo("for the cost give --prices PROMPT,COMPLETION", err=True)
    _tell_damaged(found.damaged)


# ------------------------------------------------------------------------------------- the store


@contextmanager
def _open(folder: Path) -> Iterator[Store]:
    """An existing store; a folder that is none is not made into one."""
    from curate.exceptions import CurateError
    from labelers.store import Store

    if not any(folder.glob("exchanges-*.jsonl")):
        raise CurateError(
            f"there is no store of exchanges at {folder.absolute()}: `curate label RECIPE` makes one, "
            ".curate beside the recipe; name it with --store FOLDER"
        )
    with Store(folder) as opened:
        yield opened


def _selection(**chosen: Any) -> Selection:
    from labelers.exchange_log import Selection

    return Selection(**chosen)


def _tell_damaged(damaged: int) -> None:
    if damaged:
        click.echo(
            f"{_count(damaged, 'line')} of the store could not be read and "
            f"{'is' if damaged == 1 else 'are'} left out; `curate log prune --damaged` takes "
            f"{'it' if damaged == 1 else 'them'} out",
            err=True,
        )


# ---------------------------------------------------------------------------------------- output


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _clean(text: str) -> str:
    """Text that cannot steer a terminal: control characters, line breaks apart, are written out."""
    return "".join(
        ascii(c)[1:-1] if c not in "\n\t" and unicodedata.category(c) == "Cc" else c for c in text
    )


def _words(text: str, width: int) -> str:
    line = " ".join(_clean(text).split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _print_lines(store: Store, found: list[Exchange], none: str) -> None:
    from curate.results import aligned
    from labelers.exchange_log import answered_text, model_name, row_prompt, tokens

    rows = [("time (UTC)", "key", "run", "teacher", "path", "tokens", "prompt", "answer")]
    room = max(shutil.get_terminal_size((100, 24)).columns - 90, 48)
    for exchange in found:
        prompt, completion = tokens(exchange)
        rows.append(
            (
                exchange.time[:19].replace("T", " "), exchange.key[:8], _words(exchange.run, 16) or "–",
                _words(model_name(exchange), 20), exchange.path, f"{prompt}+{completion}",
                _words(row_prompt(exchange), room * 3 // 5),
                _words(answered_text(exchange), room * 2 // 5),
            )
        )  # fmt: skip
    click.echo(aligned(rows) if found else none)
    _tell_damaged(store.damaged)


def _shown(exchange: Exchange) -> Iterator[str]:
    """An exchange as a person reads it."""
    from labelers.exchange_log import answer_parts, request_turns, tokens

    prompt, completion = tokens(exchange)
    took = "" if exchange.seconds is None else f", {exchange.seconds:.2f} s"
    yield f"key      {exchange.key}"
    yield f"time     {exchange.time}{took}"
    yield f"run      {_clean(exchange.run) or '–'}"
    yield f"teacher  {_clean(json.dumps(dict(exchange.teacher), ensure_ascii=False))}"
    yield f"path     {exchange.path}, sample {exchange.sample}"
    yield f"tokens   {prompt:,} prompt, {completion:,} completion"
    settings = {k: v for k, v in exchange.request.items() if k not in ("messages", "prompt")}
    yield f"settings {_clean(json.dumps(settings, ensure_ascii=False))}"
    for role, text in request_turns(exchange.request):
        yield f"\n--- {_clean(role)}\n{_clean(text)}"
    for name, text in answer_parts(exchange):
        yield f"\n=== {name}\n{_clean(text)}"
    rest = {k: v for k, v in exchange.response.items() if k not in ("choices", "usage")}
    choices = exchange.response.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        rest["finish_reason"] = choices[0].get("finish_reason")
        if choices[0].get("logprobs"):
            rest["logprobs"] = "see --json"
    yield f"\nresponse {_clean(json.dumps(rest, ensure_ascii=False))}"


def _pruned_text(verb: str, pruned: Any) -> str:
    damaged = f" and {_count(pruned.damaged, 'damaged line')}" if pruned.damaged else ""
    return (
        f"{_count(pruned.exchanges, 'exchange')}{damaged} {verb} ({pruned.bytes / 1e6:,.1f} MB); "
        f"{pruned.kept:,} stay"
    )


def _cost_table(runs: Any) -> str:
    from curate.results import aligned

    rows = [
        ("run", "teacher", "answers", "prompt tokens", "completion tokens", "cost", "first (UTC)",
         "last (UTC)", "answers/s")
    ]  # fmt: skip
    for run in runs:
        rows.append(
            (
                _words(run.run, 30) or "–", _words(run.teacher, 30), f"{run.exchanges:,}",
                f"{run.prompt_tokens:,}", f"{run.completion_tokens:,}", _dollars(run.cost_usd),
                run.first[:16].replace("T", " "), run.last[:16].replace("T", " "),
                "–" if run.rate is None else f"{run.rate:,.2f}",
            )
        )  # fmt: skip
    if len(runs) > 1:
        known = [run.cost_usd for run in runs if run.cost_usd is not None]
        rows.append(
            (
                "total", "", f"{sum(run.exchanges for run in runs):,}",
                f"{sum(run.prompt_tokens for run in runs):,}",
                f"{sum(run.completion_tokens for run in runs):,}",
                _dollars(sum(known) if known else None),
                "", "", "",
            )
        )  # fmt: skip
    return aligned(rows)


def _dollars(amount: float | None) -> str:
    return "–" if amount is None else f"${amount:,.4f}"
