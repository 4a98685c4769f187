"""A teacher in this process: vLLM's offline engine, with no server between."""

from __future__ import annotations

import asyncio
import itertools
import os
import queue
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import orjson

from labelers.prompts import Api
from labelers.structured import Dialect
from labelers.teachers import Prices, TeacherError
from labelers.vllm_thread import Inbox, Job, Promise, serve

#: Engine arguments that have a field of their own here.
_FIELDS = {
    "model": "model", "max_model_len": "context", "dtype": "dtype", "revision": "revision",
    "gpu_memory_utilization": "gpu_memory_utilization", "seed": "seed",
    "tensor_parallel_size": "tensor_parallel", "max_logprobs": "top_logprobs",
}  # fmt: skip
#: Engine arguments that change how fast an answer comes, not which: they stay out of the identity.
_SPEED = frozenset({
    "async_scheduling", "block_size", "compilation_config", "cpu_offload_gb", "disable_log_stats",
    "distributed_executor_backend", "download_dir", "enable_chunked_prefill",
    "enable_prefix_caching", "enforce_eager", "kv_cache_memory_bytes", "load_format",
    "max_num_batched_tokens", "max_num_seqs", "pipeline_parallel_size", "swap_space",
    "use_tqdm_on_load",
})  # fmt: skip
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")
_REST = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")


@dataclass(kw_only=True)
class VLLM:
    """A model run by vLLM in this process, with prefix caching and continuous batching.

    vLLM starts processes of its own, which import the script that is running: in a script, call
    ``label`` below ``if __name__ == "__main__":``.

    Args:
        model: A folder with a model as Hugging Face saves it, a GGUF file, or a Hub id. Inside
            requests a folder or file goes by its last name.
        api: ``chat`` (the model's own chat template) or ``completions``.
        concurrency: Requests handed to the engine at once; it batches them as memory allows.
        context: Most tokens of prompt and answer together; by default the model's own.
        dtype: ``auto``, ``bfloat16``, ``float16`` or ``float32``.
        gpu_memory_utilization: Share of the GPU's memory that vLLM takes, between 0 and 1.
        tensor_parallel: GPUs over which each layer is spread.
        revision: Branch, tag or commit of a Hub id; part of the store's key.
        top_logprobs: Most alternatives per position.
        seed: Seed of the engine, for requests above temperature 0 that bring none.
        chat_template_kwargs: Variables for the chat template, such as ``{"enable_thinking": False}``.
        engine_args: Any other argument of ``vllm.LLM``.
        name: Shown in the ``teacher`` column; by default the model's name.

    Raises:
        TeacherError: If the model's path does not exist, or ``engine_args`` names a field above.
    """

    model: str
    api: Api = "chat"
    concurrency: int = 256
    context: int | None = None
    dtype: str = "auto"
    gpu_memory_utilization: float = 0.9
    tensor_parallel: int = 1
    revision: str | None = None
    top_logprobs: int = 20
    seed: int = 0
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    prices: Prices | None = None
    #: How an answer is constrained here, see :func:`labelers.structured.structured_choice`.
    dialect: Dialect = field(default="vllm", init=False, repr=False)
    _source: str = field(default="", init=False, repr=False)
    _inbox: Inbox | None = field(default=None, init=False, repr=False)
    _thread: threading.Thread | None = field(default=None, init=False, repr=False)
    _tokenizer: Any = field(default=None, init=False, repr=False)
    _ids: Iterator[int] = field(default_factory=itertools.count, init=False, repr=False)

    def __post_init__(self) -> None:
        self._source = str(self.model)
        path = Path(self._source).expanduser()
        if path.exists():
            self._source = str(path)
            self.model = path.resolve().name
        elif path.is_absolute() or self._source.startswith((".", "~")) or len(path.parts) > 2:
            raise TeacherError(
                f"teacher.model is {self.model!r}, and there is no such folder: give a folder with "
                "config.json and weights, or a Hub id such as Qwen/Qwen2.5-7B-Instruct"
            )
        for argument in self.engine_args:
            if argument in _FIELDS:
                raise TeacherError(
                    f"teacher.engine_args names {argument}: set teacher.{_FIELDS[argument]} instead"
                )
        self.name = self.name or self.model

    @property
    def prefill(self) -> bool:
        """A completion's prompt can end inside the answer."""
        return self.api == "completions"

    @property
    def prompt_logprobs(self) -> bool:
        """It returns the probabilities of a prompt's own tokens where asked."""
        return True

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """What the answers hang on, as the store's key needs it.

        A Hub id counts by its name and revision: name a commit where its weights may change. A local
        folder or file counts by the SHA-256 of its contents (weights, configuration, tokenizer; about
        a second per gigabyte), so that weights trained further under the same name are asked anew.
        Engine arguments count unless they are known to change speed only.
        """
        rest: dict[str, Any] = {
            key: value for key, value in self.engine_args.items() if key not in _SPEED
        }
        if self.dtype != "auto":
            rest["dtype"] = self.dtype
        if self.chat_template_kwargs:
            rest["chat_template_kwargs"] = dict(self.chat_template_kwargs)
        source = Path(self._source)
        which = {"weights_sha256": _digest(source)} if source.exists() else {"model": self.model}
        if self.revision:
            which["revision"] = self.revision
        if rest:
            which["engine"] = orjson.dumps(rest, default=str, option=orjson.OPT_SORT_KEYS).decode()
        return which

    def count_tokens(self, text: str) -> int:
        """Tokens of a text by the model's own tokenizer; only while the engine is started."""
        assert self._tokenizer is not None, "count_tokens() before start()"
        return len(self._tokenizer.encode(text))

    async def start(self) -> None:
        """Load the model.

        Raises:
            TeacherError: If vLLM is not installed or cannot load the model.
        """
        if self._thread is not None:
            return
        loop = asyncio.get_running_loop()
        loaded = Promise(loop, loop.create_future())
        self._inbox = queue.SimpleQueue()
        # A daemon: a program that is interrupted while a model loads must be able to end.
        self._thread = threading.Thread(
            target=serve,
            args=(self._load, self.chat_template_kwargs, self._inbox, loaded),
            name="vllm",
            daemon=True,
        )
        self._thread.start()
        try:
            self._tokenizer = await loaded.future
        except BaseException:
            # Whether it failed or is given up, what may have been loaded by then is let go.
            self._inbox.put(None)
            self._thread = self._inbox = None
            raise

    async def send(self, path: str, body: bytes) -> bytes:
        """See :class:`labelers.teachers.Teacher`."""
        assert self._inbox is not None, "send() before start()"
        loop = asyncio.get_running_loop()
        job = Job(str(next(self._ids)), path, body, Promise(loop, loop.create_future()))
        self._inbox.put(job)
        try:
            answer: bytes = await job.answer.future
        except asyncio.CancelledError:
            if self._inbox is not None:
                self._inbox.put(job.id)
            raise
        return answer

    async def close(self) -> None:
        """End the engine and free its memory."""
        thread, inbox = self._thread, self._inbox
        self._thread = self._inbox = self._tokenizer = None
        if thread is not None and inbox is not None:
            inbox.put(None)
            await asyncio.get_running_loop().run_in_executor(None, thread.join)

    def _load(self) -> Any:
        # Standard output is the caller's, so only errors are logged, and elsewhere, unless the user has
        # said otherwise. And a fork of a process with threads, such as this one, can hang.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        try:
            import vllm
        except ImportError as error:
            raise TeacherError(
                f"the vLLM engine is not installed ({error}): run `pip install 'curate-distill[vllm]'` "
                "in an environment of its own, or serve the model and use `engine: openai`"
            ) from error
        arguments = {
            "max_model_len": self.context,
            "dtype": self.dtype,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "tensor_parallel_size": self.tensor_parallel,
            "revision": self.revision,
            "seed": self.seed,
            "max_logprobs": max(self.top_logprobs, 1),
            "enable_prefix_caching": True,
            "use_tqdm_on_load": False,
            **self.engine_args,
        }
        try:
            return vllm.LLM(self._source, **arguments)
        except Exception as error:
            raise TeacherError(
                f"vLLM cannot load {self.model}: {error} (its log, if it left any, stands above; a "
                'script must call label() below `if __name__ == "__main__":`)'
            ) from error


def _digest(source: Path) -> str:
    """SHA-256 of a model file, or over the names and contents of a model folder's files."""

    def one(path: Path) -> str:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()

    if source.is_file():
        return one(source)
    weights = next((w for pattern in _WEIGHTS if (w := sorted(source.glob(pattern)))), [])
    files = sorted(path for pattern in _REST for path in source.glob(pattern)) + weights
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        lines = [
            f"{f.name} {digest}" for f, digest in zip(files, pool.map(one, files), strict=True)
        ]
    return sha256("\n".join(lines).encode()).hexdigest()
