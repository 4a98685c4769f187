"""Write a run's report: one HTML page that holds all it needs and fetches nothing."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from curate.reports import results, texts
from curate.reports.files import ReportError, read_run
from curate.reports.sections import SECTIONS, describe, kept_bar

__all__ = ["ReportError", "write_report"]

_HERE = Path(__file__).parent


def write_report(run: Path) -> Path:
    """Write ``report.html`` into the run folder ``run`` and return its path.

    Only the run folder is read. What a run does not have (rationales, clusters, a label set, a
    student) is said in its section. The page is written under a temporary name and renamed, so a
    reader never sees half of one.

    Raises:
        ReportError: The folder or its run.json is missing or unreadable, or the page cannot be
            written.
    """
    run = Path(run)
    page = _render(describe(read_run(run)))
    path, part = run / "report.html", run / f".report.html.{os.getpid()}.part"
    try:
        part.write_text(page, encoding="utf-8", errors="replace", newline="\n")
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise ReportError(
            f"{path} cannot be written: {error.strerror or error}. Make room or make the folder "
            "writable, then write the report again; the run itself is untouched."
        ) from error
    return path


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _render(content: dict[str, Any]) -> str:
    style = (_HERE / "page.css").read_text("utf-8")
    script = (_HERE / "page.js").read_text("utf-8")
    return _template().render(
        content,
        style=Markup(style),
        script=Markup(script),
        # The page runs these two texts and no other: a tag smuggled in by the data stays inert.
        style_hash=_content_hash(style),
        script_hash=_content_hash(script),
        sections=SECTIONS,
        known_systems=set(results.SYSTEM_NAMES),
        kept_bar=kept_bar,
        script_json=_script_json,
        metric_name=results.metric_name,
        system_name=results.system_name,
        as_count=texts.as_count,
        counted=texts.counted,
        as_duration=texts.as_duration,
        as_interval=texts.as_interval,
        as_money=texts.as_money,
        as_number=texts.as_number,
        as_percent=texts.as_percent,
    )


def _content_hash(content: str) -> str:
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _script_json(value: Any) -> Markup:
    """JSON that cannot end its script element, whatever strings it holds."""
    content = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&'\u2028\u2029":
        content = content.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(content)
