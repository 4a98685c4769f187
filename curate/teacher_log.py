"""``curate log``: the store of teacher exchanges as a person reads it."""

from __future__ import annotations

import json
import math
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
        _print_list(opened, found, "no exchange is as was asked")


@log.command()
@click.argument("key")
@_STORE
@click.option("--json", "as_json", is_flag=True, help="Print the whole exchange as JSON.")
def show(key: str, store: Path, as_json: bool) -> None:
    """Show one exchange in full. The beginning of its KEY is enough."""
    from curate.log_output import shown
    from labelers.exchange_log import find

    with _open(store) as opened:
        exchange = find(opened, key)
    if as_json:
        click.echo(json.dumps(vars(exchange), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(shown(exchange)))


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
        _print_list(opened, found, f"no prompt or answer holds {text!r}")


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
    from curate.log_output import count
    from labelers.exchange_files import export_exchanges

    if file.exists() and not force:
        raise CurateError(f"{file} is there already: name another file, or replace it with --force")
    with _open(store) as opened:
        written = export_exchanges(opened, file, _selection(**chosen), sample=sample)
        click.echo(f"{count(written, 'exchange')}: {file}")
        _tell_damaged(opened.damaged)


@log.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@_STORE
def import_(file: Path, store: Path) -> None:
    """Take the exchanges of an exported JSONL FILE into the store."""
    from curate.log_output import count
    from labelers.exchange_files import import_exchanges
    from labelers.store import Store

    with Store(store) as opened:
        done = import_exchanges(opened, file)
        known = f"; {done.known:,} were there already" if done.known else ""
        click.echo(f"{count(done.added, 'exchange')} imported into {store}{known}")


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
    from curate.log_output import pruned_text
    from labelers import pruning

    how = {"damaged": damaged, "keep_last": keep_last}
    with _open(store) as opened:
        selection = _selection(**chosen)
        plan = pruning.prune(opened, selection, **how, dry_run=True)  # type: ignore[arg-type]
        click.echo(pruned_text("would go" if dry_run else "will go", plan))
        if dry_run or not (plan.exchanges or plan.damaged):
            return
        if not yes and not click.confirm("Take them out of the store for good?"):
            click.echo("nothing was taken out")
            return
        done = pruning.prune(opened, selection, **how)  # type: ignore[arg-type]
        click.echo(pruned_text("are gone", done))


@log.command()
@_selecting
@click.option(
    "--prices", callback=_two_prices, metavar="PROMPT,COMPLETION",
    help="US dollars per million tokens, such as 0.15,0.60.",
)  # fmt: skip
def cost(store: Path, prices: tuple[float, float] | None, **chosen: Any) -> None:
    """Add up answers, tokens and cost by run and teacher."""
    from curate.log_output import cost_table, count
    from labelers.exchange_log import costs
    from labelers.teachers import Prices

    with _open(store) as opened:
        paid: Prices | None = Prices(*prices) if prices else None
        found = costs(opened, _selection(**chosen), prices=paid)
    if not found.runs:
        click.echo("no exchange is as was asked")
    else:
        click.echo(cost_table(found.runs))
        if uncounted := sum(run.uncounted for run in found.runs):
            click.echo(
                f"{count(uncounted, 'answer')} came without a count of tokens and add nothing to the "
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
    from curate.log_output import count

    if damaged:
        click.echo(
            f"{count(damaged, 'line')} of the store could not be read and "
            f"{'is' if damaged == 1 else 'are'} left out; `curate log prune --damaged` takes "
            f"{'it' if damaged == 1 else 'them'} out",
            err=True,
        )


def _print_list(store: Store, found: list[Exchange], none: str) -> None:
    from curate.log_output import list_table

    click.echo(list_table(found) if found else none)
    _tell_damaged(store.damaged)
