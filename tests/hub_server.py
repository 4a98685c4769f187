"""A small server that answers as the Hugging Face Hub does when a dataset is created and filled."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """What the server holds: whether each dataset is private, its files, and the keys it was shown."""

    url: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Stay silent."""

        def say(self, status: int, body: Any, **headers: str) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def give(self, content: bytes) -> None:
            self.send_response(200)
            for name, value in {"ETag": '"3"', "X-Repo-Commit": "0" * 40}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def place(self) -> tuple[str, list[str]]:
            """The dataset that a path is about, and the rest of the path."""
            hub.asked.append(f"{self.command} {self.path}")
            hub.keys.add(self.headers.get("Authorization") or "")
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if parts[:2] == ["api", "datasets"]:
                return "/".join(parts[2:4]), parts[4:]
            return "", parts

        def do_GET(self) -> None:
            name, rest = self.place()
            if rest[:1] == ["datasets"] and rest[3] == "resolve":
                self.give(hub.files["/".join(rest[1:3])]["/".join(rest[5:])])
            elif name not in hub.files:
                self.say(404, {"error": "no such dataset"}, X_Error_Code="RepoNotFound")
            elif rest[:1] == ["tree"]:
                found = _within(hub.files[name], "/".join(rest[2:]))
                if found or len(rest) == 2:
                    self.say(200, found)
                else:
                    self.say(404, {"error": "no such folder"}, X_Error_Code="EntryNotFound")
            else:
                facts = {"id": name, "sha": "0" * 40, "private": hub.private[name], "siblings": []}
                self.say(200, facts)

        do_HEAD = do_GET  # noqa: N815

        def do_POST(self) -> None:
            name, rest = self.place()
            body = self.body()
            if rest == ["api", "repos", "create"]:
                wanted = json.loads(body)
                made = f"{wanted['organization']}/{wanted['name']}"
                hub.private[made], hub.files[made] = wanted.get("visibility") == "private", {}
                self.say(200, {"url": f"{hub.url}/datasets/{made}", "id": made})
            elif rest[:1] == ["preupload"]:
                paths = [each["path"] for each in json.loads(body)["files"]]
                self.say(200, {"files": [_way(path) for path in paths]})
            elif rest[-2:] == ["objects", "batch"]:
                objects = json.loads(body)["objects"]
                for each in objects:
                    each["actions"] = {"upload": {"href": f"{hub.url}/large/{each['oid']}"}}
                self.say(200, {"transfer": "basic", "objects": objects})
            elif rest[:1] == ["commit"]:
                for line in body.decode().splitlines():
                    change = json.loads(line)
                    if change["key"] == "file":
                        value = change["value"]
                        hub.files[name][value["path"]] = base64.b64decode(value["content"])
                    elif change["key"] == "lfsFile":
                        value = change["value"]
                        hub.files[name][value["path"]] = hub.large[value["oid"]]
                    elif change["key"] == "deletedFile":
                        hub.files[name].pop(change["value"]["path"], None)
                address = f"{hub.url}/datasets/{name}/commit/{'1' * 40}"
                self.say(200, {"success": True, "commitOid": "1" * 40, "commitUrl": address})
            elif rest[:1] == ["paths-info"]:
                self.say(200, [])
            else:
                self.say(200, {"errors": [], "warnings": []})

        def do_PUT(self) -> None:
            hub.large[self.place()[1][-1]] = self.body()
            self.say(200, {})

    return Handler


def _way(path: str) -> dict[str, Any]:
    """How a file is to be sent: tables for themselves, the rest with the commit."""
    mode = "lfs" if path.endswith(".parquet") else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False}


def _within(files: dict[str, bytes], folder: str) -> list[dict[str, Any]]:
    """The files and folders that lie in a folder, not deeper."""
    start = f"{folder}/" if folder else ""
    found: dict[str, dict[str, Any]] = {}
    for path, content in files.items():
        name, deeper, _ = path.removeprefix(start).partition("/")
        if path.startswith(start):
            kind = {"type": "directory"} if deeper else {"type": "file", "size": len(content)}
            found[name] = {"path": start + name, "oid": "2" * 40, **kind}
    return list(found.values())


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve on a free port of this machine until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
