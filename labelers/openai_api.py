"""A teacher behind any OpenAI-compatible server: vLLM, llama.cpp, a hosted API."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, get_args

import aiohttp
import orjson

from labelers.prompts import Api
from labelers.teachers import Dialect, Prices, RetryableError, RowError, TeacherError

DEFAULT_BASE_URL = "https://api.openai.com/v1"
_RETRYABLE_STATUS = frozenset({408, 409, 425, 429, *range(500, 600)})
_OVERLOADED_STATUS = frozenset({408, 429, 503, 504, 529})
_CONTEXT_WORDS = ("context", "maximum length", "too long", "max_model_len")
#: OpenAI's word for an account without money: waiting does not help.
_NO_QUOTA = b"insufficient_quota"
#: Fields of a body that the labeling loop sets itself.
_OURS = frozenset(
    {"model", "messages", "prompt", "max_tokens", "max_completion_tokens", "stream", "n", "best_of"}
)
#: What stands in place of the key where a server quotes it.
_STRUCK = b"[key]"


@dataclass(kw_only=True)
class OpenAICompatible:
    """A model served over the OpenAI wire protocol.

    Args:
        model: The name under which the server knows the model.
        base_url: Root of the API, ending in ``/v1`` as a rule. Default: ``OPENAI_BASE_URL`` or
            OpenAI's own.
        api_key_env: Environment variable that holds the key. Without it ``OPENAI_API_KEY`` is used,
            but only for OpenAI's own URL or that of ``OPENAI_BASE_URL``; any other server gets no
            key. The key itself is never stored or shown.
        api: ``chat``, or ``completions`` to have a base model continue a text.
        concurrency: Requests under way at once.
        revision: Anything that tells apart weights served under one name; part of the store's key.
        top_logprobs: Alternatives asked for per position (vLLM allows 20, OpenAI 20 in chat).
        prices: Prices of the tokens.
        extra: More fields of every request's body, such as ``{"top_p": 0.9}`` or vLLM's
            ``{"chat_template_kwargs": {"enable_thinking": False}}``; part of the store's key.
        reasoning: Whether the model thinks before it answers and takes neither a temperature nor
            ``max_tokens``, as OpenAI's reasoning models: the temperature is left out and the limit is
            sent as ``max_completion_tokens``. It gives no token probabilities.
        dialect: How the server takes a constraint on its answers: ``vllm`` for vLLM's
            ``structured_outputs``, ``json_schema`` for OpenAI's ``response_format``, ``llama.cpp`` for
            its server's ``grammar``; None for not at all.
        connect_timeout: Seconds to reach the server.
        read_timeout: Seconds that the server may stay silent.
        total_timeout: Most seconds for one request in all; None for no limit.
    """

    model: str
    base_url: str = ""
    api_key_env: str | None = None
    api: Api = "chat"
    concurrency: int = 64
    revision: str | None = None
    top_logprobs: int = 20
    prices: Prices | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    reasoning: bool = False
    dialect: Dialect | None = None
    connect_timeout: float = 10.0
    read_timeout: float = 600.0
    total_timeout: float | None = None
    name: str = ""
    _session: aiohttp.ClientSession | None = field(default=None, init=False, repr=False)
    _key: str = field(default="", init=False, repr=False)
    _listed: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        self.base_url = (
            self.base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL
        ).rstrip("/")
        if not self.base_url.startswith(("http://", "https://")):
            raise TeacherError(
                f"teacher.base_url is {self.base_url!r}: it must begin with http:// or https://, "
                "for example http://127.0.0.1:8000/v1"
            )
        if self.api_key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_env):
            # Not quoted: it is likely to be the key itself.
            raise TeacherError(
                "teacher.api_key_env must be the name of an environment variable in capital letters, "
                "such as OPENAI_API_KEY, never the key itself"
            )
        authority = self.base_url.split("/")[2]
        if "@" in authority:
            # It would be shown in errors, and logged by the server.
            raise TeacherError(
                f"teacher.base_url of {authority.rpartition('@')[2]} holds a user name or password: "
                "leave it out, and name a variable with the key in teacher.api_key_env"
            )
        if "?" in self.base_url:
            raise TeacherError(
                f"teacher.base_url of {authority} holds a query (`?`): it would be shown in errors, and "
                "paths are put behind it. Leave it out, and name a variable with the key in "
                "teacher.api_key_env"
            )
        if self.api not in get_args(Api):
            raise TeacherError(f"teacher.api is {self.api!r}: choose 'chat' or 'completions'")
        most: object = self.concurrency
        if not isinstance(most, int) or most < 1:
            raise TeacherError(
                f"teacher.concurrency is {self.concurrency!r}: it must be a whole number, at least 1"
            )
        if self.prices is not None and not isinstance(self.prices, Prices):
            raise TeacherError(
                f"teacher.prices is {self.prices!r}: give labelers.Prices(prompt=..., completion=...)"
            )
        if clash := _OURS & self.extra.keys():
            raise TeacherError(
                f"teacher.extra holds {sorted(clash)[0]!r}, which labeling sets itself: leave it out"
            )
        if self.reasoning:
            self.top_logprobs = 0
        self.name = self.name or self.model

    @property
    def prefill(self) -> bool:
        """A completion's prompt can end inside the answer; a chat's cannot everywhere."""
        return self.api == "completions"

    @property
    def identity(self) -> Mapping[str, str]:
        """Model and revision. The URL is left out: a server that moves keeps its answers."""
        return {"model": self.model, **({"revision": self.revision} if self.revision else {})}

    async def start(self) -> None:
        """Open the connection pool and ask the server for its models.

        Raises:
            TeacherError: If the key is missing or refused, the server cannot be reached, or it
                serves no model of this name.
        """
        self._key = self._read_key()
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            headers=headers,
            timeout=aiohttp.ClientTimeout(
                total=self.total_timeout,
                sock_connect=self.connect_timeout,
                sock_read=self.read_timeout,
            ),
        )
        try:
            await self._check_server()
        except BaseException:
            await self.close()
            raise

    def _read_key(self) -> str:
        home = (os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL).rstrip("/")
        if self.api_key_env is None and self.base_url not in (home, DEFAULT_BASE_URL):
            # A recipe that somebody shared names its server; the user's key is not for it.
            return ""
        variable = self.api_key_env or "OPENAI_API_KEY"
        key = os.environ.get(variable, "").strip()
        if not key and (self.api_key_env or self.base_url == DEFAULT_BASE_URL):
            raise TeacherError(
                f"the environment variable {variable} holds no key for {self.base_url}: run "
                f"`export {variable}=...`, or set teacher.base_url to a server that needs none"
            )
        if not (key.isascii() and key.isprintable()):
            raise TeacherError(
                f"the environment variable {variable} holds a line break or another character that "
                "no key has: set it to the key alone"
            )
        return key

    async def _check_server(self) -> None:
        assert self._session is not None
        try:
            async with self._session.get(f"{self.base_url}/models") as response:
                status, body = response.status, self._strike(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TeacherError(
                f"no server answers at {self.base_url} ({self._reason(error)}): start it, or correct "
                "teacher.base_url"
            ) from error
        if status in (401, 403):
            raise self._refused(status, body)
        if status != 200:
            # Some gateways list no models; the first real request will tell.
            return
        try:
            served = [str(entry["id"]) for entry in orjson.loads(body)["data"]]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return
        if served and self.model not in served:
            raise self._unknown_model(served)
        self._listed = bool(served)

    def _refused(self, status: int, body: bytes) -> TeacherError:
        if not self._key:
            return TeacherError(
                f"{self.base_url} asks for a key (HTTP {status}: {self._message(body)}): name the "
                "environment variable that holds it in teacher.api_key_env"
            )
        variable = self.api_key_env or "OPENAI_API_KEY"
        return TeacherError(
            f"{self.base_url} refuses the key in {variable} (HTTP {status}: "
            f"{self._message(body)}): check the key and what it may use"
        )

    def _unknown_model(self, served: list[str]) -> TeacherError:
        shown = ", ".join(served[:8]) + (", …" if len(served) > 8 else "")
        return TeacherError(
            f"{self.base_url} serves no model named {self.model!r}; it serves: {shown}. Correct "
            "teacher.model"
        )

    def adapt(self, body: dict[str, Any]) -> dict[str, Any]:
        """See :class:`labelers.teachers.Adapting`."""
        if self.reasoning:
            body = {name: value for name, value in body.items() if name != "temperature"}
            if "max_tokens" in body and self.api == "chat":
                body["max_completion_tokens"] = body.pop("max_tokens")
        return {**body, **self.extra} if self.extra else body

    def check(self, answer: Mapping[str, Any]) -> None:
        """See :class:`labelers.teachers.Checking`.

        Only where the server listed the model under this name: gateways answer under names of their own.
        """
        said = answer.get("model")
        if not self._listed or said == self.model or not isinstance(said, str):
            return
        # A dated name ("gpt-x-2025-01-01") is the same model as the short one that was asked for.
        if not said.startswith(self.model):
            raise RetryableError(f"the answer comes from {said[:80]!r} instead of {self.model!r}")

    async def send(self, path: str, body: bytes) -> bytes:
        """See :class:`labelers.teachers.Teacher`."""
        assert self._session is not None, "send() before start()"
        try:
            async with self._session.post(f"{self.base_url}/{path}", data=body) as response:
                answer = self._strike(await response.read())
                status, headers = response.status, response.headers
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RetryableError(
                f"the connection failed ({self._reason(error)})",
                overloaded=isinstance(error, TimeoutError),
                # One that never came about has cost nothing.
                charged=not isinstance(error, aiohttp.ClientConnectorError),
            ) from error
        if status == 200:
            return answer
        if status in (401, 403):
            raise self._refused(status, answer)
        if status == 404:
            raise TeacherError(
                f"{self.base_url}/{path} answers HTTP 404 ({self._message(answer)}): "
                f"{self._remedy_for_404()}"
            )
        message = f"HTTP {status}: {self._message(answer)}"
        if status == 402 or (status == 429 and _NO_QUOTA in answer):
            raise TeacherError(
                f"{self.base_url} answers that the account has no money left ({message}): add credit "
                "and run the same command again; what was answered is stored"
            )
        if status in _RETRYABLE_STATUS:
            raise RetryableError(
                message,
                retry_after=_retry_after(headers),
                overloaded=status in _OVERLOADED_STATUS,
                # Turned away before any work was done; other failures may have been counted.
                charged=status not in (409, 425, 429, 503, 529),
            )
        if any(word in message.lower() for word in _CONTEXT_WORDS):
            raise RowError(message, kind="context_length")
        raise RowError(message)

    def _remedy_for_404(self) -> str:
        """What to look at; the commonest cause is an address without its version."""
        if re.search(r"/v\d", self.base_url):
            return "check teacher.base_url, teacher.model and teacher.api"
        return (
            f"teacher.base_url ends in /v1 as a rule, try {self.base_url}/v1; else check teacher.model "
            "and teacher.api"
        )

    def _message(self, body: bytes) -> str:
        """The server's own words, shortened."""
        text = body.decode("utf-8", "replace")
        try:
            parsed = orjson.loads(body)
            error = parsed.get("error", parsed)
            if isinstance(error, dict):  # `detail` is FastAPI's, which vLLM is built on.
                error = error.get("message") or error.get("detail") or error
            text = str(error)
        except (orjson.JSONDecodeError, AttributeError):
            pass
        text = " ".join(text.split())
        return text if len(text) <= 200 else text[:199] + "…"

    def _strike(self, text: bytes) -> bytes:
        """What the server said, without the key, should it quote that: it is stored and shown."""
        if not self._key:
            return text
        key = self._key.encode()
        for spelling in {key, orjson.dumps(self._key)[1:-1], key.replace(b"/", rb"\/")}:
            if spelling in text:
                text = text.replace(spelling, _STRUCK)
        return text

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, TimeoutError):
            return "it timed out"
        words = str(error) or type(error).__name__
        return self._strike(words.encode("utf-8", "replace")).decode()

    async def close(self) -> None:
        """See :class:`labelers.teachers.Teacher`."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        self._key = ""  # An object that is kept or pickled holds it no longer than it is needed.


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the ``Retry-After`` header (RFC 9110, 10.2.3): a number or a date."""
    value: Any = headers.get("Retry-After")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
