"""A teacher in this process: llama.cpp on a GGUF file, with no server, key or GPU."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from labelers.prompts import Api
from labelers.structured import Dialect
from labelers.teachers import Prices, RetryableError, RowError, TeacherError

#: Request fields that llama.cpp leaves out without a word, and what to do instead.
_IGNORED = {
    "prompt_logprobs": "it does not score a prompt: read probabilities from logprobs",
    "echo": "it does not score a prompt: read probabilities from logprobs",
    "structured_outputs": "it is held to a list by `grammar` (dialect 'llama.cpp')",
    "guided_choice": "it is held to a list by `grammar` (dialect 'llama.cpp')",
    "guided_regex": "it is held to a form by `grammar`",
    "guided_json": "it is held to a schema by `json_schema`",
}


@dataclass(kw_only=True)
class LlamaCpp:
    """A GGUF model run by llama.cpp.

    Args:
        model_path: The GGUF file.
        api: ``completions`` (the default: small instruct models label better as few-shot base
            models) or ``chat`` (the file's own chat template).
        slots: Requests computed together in one batch.
        context: Tokens of context per slot.
        threads: Threads; by default one per core.
        name: Shown in the ``teacher`` column; by default the file's name.

    Raises:
        TeacherError: If the file is missing or is not a GGUF file.
    """

    model_path: str | os.PathLike[str]
    api: Api = "completions"
    slots: int = 4
    context: int = 2048
    threads: int | None = None
    name: str = ""
    top_logprobs: int = 20
    prices: Prices | None = None
    #: How an answer is constrained here, see :func:`labelers.structured.structured_choice`.
    dialect: Dialect = field(default="llama.cpp", init=False, repr=False)
    _key: str = field(default="", init=False, repr=False)
    _server: Any = field(default=None, init=False, repr=False)
    _pool: ThreadPoolExecutor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        path = Path(self.model_path)
        try:
            with path.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise TeacherError(
                f"the teacher's model file {path} cannot be read: {error.strerror}; name a GGUF "
                "file or the short name of an offline model"
            ) from error
        if magic != b"GGUF":
            raise TeacherError(
                f"{path} is not a GGUF file (it begins with {magic!r}): llama.cpp reads GGUF only"
            )
        self.name = self.name or path.stem

    @property
    def model(self) -> str:
        """The model's name inside a request; the file's, so that a display name changes no key."""
        return Path(self.model_path).stem

    @property
    def concurrency(self) -> int:
        """As many requests as there are slots."""
        return self.slots

    @property
    def prefill(self) -> bool:
        """A completion's prompt can end inside the answer."""
        return self.api == "completions"

    @property
    def prompt_logprobs(self) -> bool:
        """It does not return the probabilities of a prompt's own tokens."""
        return False

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """The file's SHA-256: the weights, tokenizer and chat template are all inside it."""
        with Path(self.model_path).open("rb") as file:
            return {"gguf_sha256": hashlib.file_digest(file, "sha256").hexdigest()}

    async def start(self) -> None:
        """Load the model.

        Raises:
            TeacherError: If ``xllamacpp`` is not installed or the model cannot be loaded.
        """
        if self._server is None:
            self._pool = ThreadPoolExecutor(self.slots, thread_name_prefix="llama.cpp")
            self._server = await asyncio.get_running_loop().run_in_executor(self._pool, self._load)

    def _load(self) -> Any:
        try:
            import xllamacpp
        except ImportError as error:
            raise TeacherError(
                "the llama.cpp engine is not installed: run `pip install 'curate-distill[offline]'`"
            ) from error
        params = xllamacpp.CommonParams()
        params.model.path = str(self.model_path)
        params.n_parallel = self.slots
        params.n_ctx = self.context * self.slots
        params.warmup = False
        # Without this it keeps the state of every finished prompt, up to 8 GB; the beginning that
        # all prompts share stays in the slots anyway.
        params.cache_ram_mib = 0
        # It also listens on a free port of this machine: nobody else is to use it or see the texts.
        self._key = secrets.token_hex(16)
        params.api_keys = [self._key]
        params.verbosity = -1
        threads = self.threads or os.cpu_count() or 1
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        try:
            return xllamacpp.Server(params)
        except Exception as error:
            raise TeacherError(f"llama.cpp cannot load {self.model_path}: {error}") from error

    def count_tokens(self, text: str) -> int:
        """Tokens of a text by the model's own tokenizer; only while the engine is started."""
        assert self._server is not None, "count_tokens() before start()"
        request = urllib.request.Request(
            f"{self._server.listening_address}/tokenize",
            data=orjson.dumps({"content": text, "add_special": True}),
            headers={"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        # Straight to this machine, whatever proxy the environment names.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request) as response:
            return len(orjson.loads(response.read())["tokens"])

    async def send(self, path: str, body: bytes) -> bytes:
        """See :class:`labelers.teachers.Teacher`.

        Raises:
            TeacherError: If the request holds a field that llama.cpp would leave out.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._answer, path, body)

    def _answer(self, path: str, body: bytes) -> bytes:
        assert self._server is not None, "send() before start()"
        handle = (
            self._server.handle_chat_completions
            if path == "chat/completions"
            else self._server.handle_completions
        )
        request = orjson.loads(body)
        _refuse_what_is_ignored(path, request)
        try:
            answer = handle(request)
        except Exception as error:
            raise RetryableError(f"llama.cpp failed: {error}") from error
        if "error" in answer:
            refusal = answer["error"]
            too_long = refusal.get("type") == "exceed_context_size_error"
            raise RowError(
                str(refusal.get("message", refusal)),
                kind="context_length" if too_long else "bad_request",
            )
        return orjson.dumps(answer)

    async def close(self) -> None:
        """Free the model's memory."""
        self._server = None
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None


def _refuse_what_is_ignored(path: str, request: Mapping[str, Any]) -> None:
    for name, instead in _IGNORED.items():
        if request.get(name) not in (None, False):
            raise TeacherError(f"llama.cpp knows no request field {name!r}; {instead}")
    if path == "completions" and request.get("response_format") is not None:
        raise TeacherError(
            "llama.cpp knows `response_format` in chats only, and would answer a completion freely: "
            "use `api: chat`, or the dialect 'llama.cpp'"
        )
    if request.get("n", 1) != 1:
        raise TeacherError(
            f"n is {request['n']}: llama.cpp is asked for one answer at a time here, since it counts "
            "the tokens of the first only; send a request for each sample"
        )
