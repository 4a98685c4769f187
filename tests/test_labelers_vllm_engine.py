"""The vLLM engine without vLLM: a stub stands in for its offline engine, step by step."""

from __future__ import annotations

import asyncio
import sys
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from labelers import RowError, TeacherError
from labelers.teachers import RetryableError
from labelers.vllm_engine import VLLM
from labelers.vllm_wire import answer, sampling_arguments

CHAT, TEXT = "chat/completions", "completions"


@dataclass
class Logprob:
    logprob: float
    rank: int
    decoded_token: str


@dataclass
class Made:
    text: str = " Paris"
    token_ids: tuple[int, ...] = (7042,)
    logprobs: Any = None
    finish_reason: str = "stop"
    stop_reason: Any = None


@dataclass
class Output:
    request_id: str = "7"
    outputs: list[Made] = field(default_factory=lambda: [Made()])
    prompt_token_ids: tuple[int, ...] = (1, 2, 3)
    prompt_logprobs: Any = None
    finished: bool = True


class Tokenizer:
    """A token for each character; a chat is its contents and the variables of its template."""

    chat_template: str | None = "a template"

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def apply_chat_template(self, messages: list[dict[str, str]], **how: Any) -> list[int]:
        assert how.pop("tokenize")
        assert how.pop("add_generation_prompt")
        assert how.pop("return_dict") is False
        if self.chat_template is None:
            raise ValueError("no chat template")
        if any(message["role"] == "system" for message in messages):
            raise ValueError("system role not supported")
        return self.encode("".join(m["content"] for m in messages) + "".join(sorted(how)))


class VLLMClientError(Exception):
    """As of vLLM 0.32 no ValueError."""


class Engine:
    """Finishes a request after as many steps as it may have tokens."""

    def __init__(self) -> None:
        self.model_config = types.SimpleNamespace(max_model_len=64)
        self.engine_core = types.SimpleNamespace(shutdown=self._shut_down)
        self.left: dict[str, list[Any]] = {}
        self.log: list[str] = []
        self.params: list[Any] = []
        #: Steps that it may take; None: any number.
        self.steps: threading.Semaphore | None = None
        self.fails: Exception | None = None
        self.reason = "stop"

    def _shut_down(self) -> None:
        self.log.append("shut down")

    def add_request(self, request_id: str, prompt: dict[str, Any], params: Any) -> None:
        self.log.append(f"add {request_id}")
        self.params.append(params)
        if params.get("structured_outputs") == {"regex": "("}:
            raise ValueError("the regex does not compile")
        if params.get("structured_outputs") == {"choice": []}:
            raise VLLMClientError("the choices are empty")
        if params.get("seed") == 666:
            raise AttributeError("'Engine' has no attribute 'core'")
        self.left[request_id] = [prompt["prompt_token_ids"], params["max_tokens"]]

    def abort_request(self, ids: list[str]) -> None:
        self.log.append(f"abort {ids[0]}")
        del self.left[ids[0]]

    def step(self) -> list[Output]:
        if self.steps is not None:
            assert self.steps.acquire(timeout=20), "nobody lets the engine go on"
        if self.fails:
            raise self.fails
        finished = []
        for request_id, state in list(self.left.items()):
            state[1] -= 1
            if not state[1]:
                del self.left[request_id]
                text = "".join(map(chr, state[0])).upper()
                made = Made(text=text, finish_reason=self.reason)
                finished.append(Output(request_id=request_id, outputs=[made]))
        return finished


class Installed:
    """What ``import vllm`` finds."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.tokenizer = Tokenizer()
        self.loaded: list[tuple[str, dict[str, Any]]] = []
        self.refuses: Exception | None = None

    def llm(self, source: str, **arguments: Any) -> Any:
        if self.refuses:
            raise self.refuses
        self.loaded.append((source, arguments))
        return types.SimpleNamespace(llm_engine=self.engine, get_tokenizer=lambda: self.tokenizer)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Installed:
    for name in ("VLLM_LOGGING_LEVEL", "VLLM_LOGGING_STREAM", "VLLM_WORKER_MULTIPROC_METHOD"):
        monkeypatch.setenv(name, "")  # restored to what it was; the engine sets what is not there
        monkeypatch.delenv(name)
    installed = Installed()
    module = types.ModuleType("vllm")
    module.LLM = installed.llm  # type: ignore[attr-defined]
    module.SamplingParams = dict  # type: ignore[attr-defined]
    params = types.ModuleType("vllm.sampling_params")
    params.StructuredOutputsParams = dict  # type: ignore[attr-defined]
    params.RequestOutputKind = types.SimpleNamespace(FINAL_ONLY="final")  # type: ignore[attr-defined]
    errors = types.ModuleType("vllm.exceptions")
    errors.VLLMClientError = VLLMClientError  # type: ignore[attr-defined]
    module.exceptions = errors  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.exceptions", errors)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", params)
    return installed


def text_of(raw: bytes) -> str:
    return str(orjson.loads(raw)["choices"][0]["text"])


def asked(prompt: str, **fields: Any) -> bytes:
    return orjson.dumps({"model": "m", "prompt": prompt, "max_tokens": 1, **fields})


def run(work: Callable[[VLLM], Any], **how: Any) -> Any:
    async def whole() -> Any:
        teacher = VLLM(**{"model": "org/model", "api": "completions", **how})
        await teacher.start()
        try:
            return await work(teacher)
        finally:
            await teacher.close()

    return asyncio.run(whole())


# ------------------------------------------------------------------------------------ the engine


def test_a_new_request_joins_those_under_way_and_may_overtake_them(vllm: Installed) -> None:
    async def work(teacher: VLLM) -> tuple[str, str]:
        vllm.engine.steps = steps = threading.Semaphore(0)
        long = asyncio.create_task(teacher.send(TEXT, asked("long", max_tokens=40)))
        short = asyncio.create_task(teacher.send(TEXT, asked("short")))
        await asyncio.sleep(0)  # Both are handed over; in the first step one may not be seen yet.
        steps.release(2)
        said = text_of(await short)
        assert not long.done()
        steps.release(40)
        return said, text_of(await long)

    assert run(work) == ("SHORT", "LONG")
    assert vllm.engine.log == ["add 0", "add 1", "shut down"]
    assert vllm.engine.params[0]["output_kind"] == "final"


def test_a_request_that_is_given_up_is_aborted_and_harms_no_other(vllm: Installed) -> None:
    async def work(teacher: VLLM) -> str:
        vllm.engine.steps = steps = threading.Semaphore(0)
        long = asyncio.create_task(teacher.send(TEXT, asked("long", max_tokens=50)))
        short = asyncio.create_task(teacher.send(TEXT, asked("short")))
        await asyncio.sleep(0)  # Both are handed over; in the first step one may not be seen yet.
        steps.release(2)
        await short
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)
        steps.release(9)
        return text_of(await teacher.send(TEXT, asked("next")))

    assert run(work) == "NEXT"
    assert vllm.engine.log == ["add 0", "add 1", "abort 0", "add 2", "shut down"]


def test_an_engine_that_fails_ends_what_is_under_way_and_what_comes(vllm: Installed) -> None:
    vllm.engine.fails = RuntimeError("CUDA out of memory")

    async def work(teacher: VLLM) -> list[Any]:
        first = await asyncio.gather(
            *(teacher.send(TEXT, asked(str(i))) for i in range(3)), return_exceptions=True
        )
        return [
            *first,
            *(await asyncio.gather(teacher.send(TEXT, asked("x")), return_exceptions=True)),
        ]

    errors = run(work)
    assert len(errors) == 4
    for error in errors:
        assert isinstance(error, TeacherError)
        assert "has failed (RuntimeError: CUDA out of memory)" in str(error)
    assert vllm.engine.log[-1] == "shut down"


def test_one_bad_request_fails_alone(vllm: Installed) -> None:
    bodies = {
        "context_length": asked("x" * 64),
        "bad_request": asked("x", structured_outputs={"regex": "("}),
        "client_error": asked("x", structured_outputs={"choice": []}),
        "fine": asked("just fits".ljust(63), max_tokens=500),
    }

    async def work(teacher: VLLM) -> dict[str, Any]:
        sent = (teacher.send(TEXT, body) for body in bodies.values())
        return dict(zip(bodies, await asyncio.gather(*sent, return_exceptions=True), strict=True))

    found = run(work)
    for row, kind in (
        ("context_length", "context_length"),
        ("bad_request", "bad_request"),
        ("client_error", "bad_request"),
    ):
        assert isinstance(found[row], RowError)
        assert found[row].kind == kind
    assert "64 tokens, and the model's context is 64" in str(found["context_length"])
    assert "the regex does not compile" in str(found["bad_request"])
    assert text_of(found["fine"]).startswith("JUST FITS")
    assert vllm.engine.params[-1]["max_tokens"] == 1, "the answer must fit into the context"


def test_an_error_that_is_not_the_requests_own_stops_the_run_and_leaves_nobody_waiting(
    vllm: Installed,
) -> None:
    async def work(teacher: VLLM) -> str:
        with pytest.raises(
            TeacherError, match=r"takes no request \(AttributeError: 'Engine' has no"
        ):
            await teacher.send(TEXT, asked("x", seed=666))
        return text_of(await teacher.send(TEXT, asked("next")))

    assert run(work) == "NEXT"


def test_an_answer_that_the_engine_gave_up_is_asked_again(vllm: Installed) -> None:
    vllm.engine.reason = "abort"
    with pytest.raises(RetryableError, match="finish reason: abort"):
        run(lambda teacher: teacher.send(TEXT, asked("x")))


def test_a_chat_goes_through_the_models_template(vllm: Installed) -> None:
    def send(*roles: str) -> Callable[[VLLM], Any]:
        messages = [{"role": role, "content": role} for role in roles]
        body = {"messages": messages, "max_tokens": 1, "chat_template_kwargs": {"b": 1}}
        return lambda teacher: teacher.send(CHAT, orjson.dumps(body))

    how = {"api": "chat", "chat_template_kwargs": {"enable_thinking": False}}
    said = orjson.loads(run(send("user"), **how))["choices"][0]["message"]
    assert said == {"role": "assistant", "content": "USERBENABLE_THINKING"}
    with pytest.raises(RowError, match="refuses the messages: system role not supported"):
        run(send("system", "user"), **how)
    vllm.tokenizer.chat_template = None
    with pytest.raises(TeacherError, match="has no chat template: use `api: completions`"):
        run(send("user"), **how)


def test_it_is_loaded_as_the_fields_say(vllm: Installed) -> None:
    async def work(teacher: VLLM) -> int:
        return teacher.count_tokens("seven t")

    how = {"context": 512, "tensor_parallel": 2, "engine_args": {"quantization": "fp8"}}
    assert run(work, **how) == 7
    source, arguments = vllm.loaded[0]
    assert source == "org/model"
    assert arguments.items() >= {
        "max_model_len": 512, "tensor_parallel_size": 2, "quantization": "fp8",
        "enable_prefix_caching": True, "gpu_memory_utilization": 0.9, "max_logprobs": 20,
    }.items()  # fmt: skip


def test_what_cannot_be_loaded_is_said_and_can_be_tried_again(vllm: Installed) -> None:
    async def work() -> str:
        teacher = VLLM(model="org/model", api="completions")
        vllm.refuses = ValueError("No available memory for the cache blocks")
        with pytest.raises(TeacherError, match="vLLM cannot load org/model: No available memory"):
            await teacher.start()
        vllm.refuses = None
        await teacher.start()
        said = text_of(await teacher.send(TEXT, asked("x")))
        await teacher.close()
        return said

    assert asyncio.run(work()) == "X"


def test_without_vllm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(TeacherError, match=r"pip install 'curate-distill\[vllm\]'"):
        asyncio.run(VLLM(model="org/model").start())


# ----------------------------------------------------------------------------------- the identity


def folder(path: Path, **files: bytes) -> str:
    path.mkdir()
    for name, content in {"config": b"{}", "weights": b"1234", **files}.items():
        (
            path / {"config": "config.json", "weights": "model.safetensors"}.get(name, name)
        ).write_bytes(content)
    return str(path)


def test_the_identity_is_a_folders_content_and_not_its_place(tmp_path: Path) -> None:
    one = VLLM(model=folder(tmp_path / "model"))
    (tmp_path / "elsewhere").mkdir()
    moved = VLLM(model=folder(tmp_path / "elsewhere" / "model", notes=b"of no account"))
    assert one.identity == moved.identity
    assert one.model == moved.model == "model", "the folder's path is in every request"
    # Trained further: equally long, under the same name.
    for number, changed in enumerate(({"weights": b"1235"}, {"config": b'{"a": 1}'})):
        other = VLLM(model=folder(tmp_path / str(number), **changed))
        assert other.identity != one.identity


def test_a_gguf_file_is_its_content_under_any_name(tmp_path: Path) -> None:
    for name, content in (("a", b"GGUF one"), ("b", b"GGUF two"), ("c", b"GGUF one")):
        (tmp_path / f"{name}.gguf").write_bytes(content)
    a, b, c = (VLLM(model=str(tmp_path / f"{name}.gguf")).identity for name in "abc")
    assert a == c != b


def test_the_identity_changes_with_what_changes_answers_and_not_with_speed() -> None:
    plain = VLLM(model="org/model").identity
    assert plain == {"model": "org/model"}
    assert VLLM(model="org/model", engine_args={"max_num_seqs": 8}, context=99).identity == plain
    for how in (
        {"revision": "abc"},
        {"engine_args": {"quantization": "fp8"}},
        {"dtype": "float16"},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ):
        assert VLLM(model="org/model", **how).identity != plain  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"model": "/no/such/folder"}, "there is no such folder"),
        ({"model": "./model"}, "there is no such folder"),
        ({"model": "runs/my/model"}, "there is no such folder"),
        (
            {"model": "org/model", "engine_args": {"max_model_len": 5}},
            "engine_args names max_model_len: set teacher.context instead",
        ),
    ],
)
def test_what_is_set_up_wrongly_is_refused_at_once(how: dict[str, Any], message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        VLLM(**how)


# ---------------------------------------------------------------------------------- the wire format


def test_sampling_arguments_are_the_servers() -> None:
    body = {
        "model": "m", "messages": [], "temperature": 0.0, "stop": ["\n"], "seed": 3,
        "logprobs": True, "top_logprobs": 5, "max_tokens": 99, "n": 1, "prompt_logprobs": 0,
    }  # fmt: skip
    assert sampling_arguments(CHAT, body, room=20) == {
        "temperature": 0.0, "stop": ["\n"], "seed": 3, "logprobs": 5, "max_tokens": 20,
        "prompt_logprobs": 0,
    }  # fmt: skip
    assert sampling_arguments(CHAT, {"messages": []}, room=20) == {"max_tokens": 20}
    assert sampling_arguments(TEXT, {"prompt": "x", "logprobs": 0}, room=20) == {
        "max_tokens": 16, "logprobs": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"structured_outputs": {"choice": ["a", "b"]}}, {"choice": ["a", "b"]}),
        ({"structured_outputs": {"regex": "a+"}}, {"regex": "a+"}),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, {"json_object": True}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"a": 1}}}},
            {"json": {"a": 1}},
        ),
    ],
)
def test_constraints_reach_the_engine(fields: dict[str, Any], constraint: Any) -> None:
    arguments = sampling_arguments(TEXT, {"prompt": "x", **fields}, room=5)
    assert arguments.get("structured_outputs") == constraint


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"guided_choice": ["a"]}, "knows no request field 'guided_choice'"),
        ({"n": 4}, "n is 4: ask for each sample"),
        ({"stream": True}, "stream is True"),
        ({"structured_outputs": {"choices": ["a"]}}, "it takes one of choice, json, regex"),
        ({"structured_outputs": {"choice": ["a"], "backend": "x"}}, "structured_outputs is"),
        ({"response_format": {"type": "xml"}}, "response_format.type is 'xml'"),
    ],
)
def test_a_field_that_would_be_left_out_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        sampling_arguments(TEXT, {"prompt": "x", **fields}, room=5)


POSITION = {
    7042: Logprob(-0.25, 1, " Paris"),
    260: Logprob(-2.75, 2, " the"),
    99: Logprob(float("-inf"), 3, ""),
}


def test_a_completion_is_written_as_the_server_writes_it() -> None:
    made = Made(logprobs=[POSITION], finish_reason="length")
    output = Output(outputs=[made], prompt_logprobs=[None, {5: Logprob(-1.5, 4, "is")}])
    body = answer(TEXT, {"model": "m", "logprobs": 1, "prompt_logprobs": 0}, output)
    del body["created"]
    assert body == {
        "id": "cmpl-7", "object": "text_completion", "model": "m",
        "choices": [{
            "index": 0, "text": " Paris", "finish_reason": "length", "stop_reason": None,
            "logprobs": {
                "text_offset": [0], "token_logprobs": [-0.25], "tokens": [" Paris"],
                "top_logprobs": [{" Paris": -0.25, " the": -2.75}],
            },
            "prompt_logprobs": [None, {"5": {"logprob": -1.5, "rank": 4, "decoded_token": "is"}}],
        }],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }  # fmt: skip


def test_a_chat_is_written_as_the_server_writes_it() -> None:
    output = Output(outputs=[Made(text="Paris", logprobs=[POSITION])])
    body = answer(CHAT, {"model": "m", "logprobs": True, "top_logprobs": 3}, output)
    choice = body["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": "Paris"}
    (entry,) = choice["logprobs"]["content"]
    assert (entry["token"], entry["logprob"], entry["bytes"]) == (" Paris", -0.25, list(b" Paris"))
    # JSON has no infinity: what a constraint forbids has -9999, as on the server.
    assert [top["logprob"] for top in entry["top_logprobs"]] == [-0.25, -2.75, -9999.0]
    assert body["prompt_logprobs"] is None
    orjson.dumps(body)
