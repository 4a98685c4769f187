"""The thread that owns vLLM's offline engine.

Between two of the engine's steps it takes in whatever has been asked meanwhile, so that new requests join
those under way (continuous batching), and hands out what is finished. Whatever happens to the engine,
whoever waits is told.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import multiprocessing.connection
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from labelers.teachers import RetryableError, RowError, TeacherError
from labelers.vllm_wire import answer, prompt_tokens, sampling_arguments


@dataclass
class Promise:
    """A result that somebody waits for in an event loop, and that another thread gives."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]

    def settle(self, result: object) -> None:
        """Give the result; an exception is raised where it is awaited."""
        with suppress(RuntimeError):  # The loop may have ended.
            self.loop.call_soon_threadsafe(self._settle, result)

    def _settle(self, result: object) -> None:
        if self.future.done():  # Whoever asked has been cancelled.
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


@dataclass
class Job:
    """One request on its way through the engine."""

    id: str
    path: str
    body: bytes
    answer: Promise
    asked: dict[str, Any] = field(default_factory=dict)


#: What the thread is sent: a request, the id of one to be given up, or None for the end.
Inbox = queue.SimpleQueue[Job | str | None]


def serve(
    load: Callable[[], Any], template: Mapping[str, Any], inbox: Inbox, loaded: Promise
) -> None:
    """Load an engine and answer what comes, until None comes.

    Args:
        load: Makes the ``vllm.LLM``.
        template: Variables for the model's chat template.
        inbox: What is to be done.
        loaded: Given the model's tokenizer, or what ``load`` raised.
    """
    try:
        llm = load()
    except Exception as error:
        loaded.settle(error)
        return
    engine = llm.llm_engine
    threading.Thread(target=_watch, args=(engine.engine_core,), daemon=True).start()
    loaded.settle(llm.get_tokenizer())
    under_way: dict[str, Job] = {}
    problem = TeacherError("the vLLM engine was closed before it answered")
    try:
        while _take_in(llm, template, inbox, under_way):
            for output in engine.step():
                if output.finished and (job := under_way.get(output.request_id)):
                    job.answer.settle(_finished(job, output))
                    del under_way[job.id]
    except Exception as error:
        problem = TeacherError(
            f"the vLLM engine has failed ({type(error).__name__}: {error}): see its log above, and run "
            "the same command again; with a lower gpu_memory_utilization or context if memory ran out"
        )
    for job in under_way.values():
        job.answer.settle(problem)
    with suppress(Exception):  # It may be dead already; its processes are gone then.
        engine.engine_core.shutdown()
    del engine, llm
    gc.collect()
    while (late := inbox.get()) is not None:
        if isinstance(late, Job):
            late.answer.settle(problem)


def _take_in(
    llm: Any, template: Mapping[str, Any], inbox: Inbox, under_way: dict[str, Job]
) -> bool:
    """Admit what waits; block only where nothing is under way. False at the end."""
    refused: tuple[type[Exception], ...] = (ValueError, TypeError, KeyError, *_refusals())
    while True:
        try:
            item = inbox.get(block=not under_way)
        except queue.Empty:
            return True
        if item is None:
            inbox.put(None)  # The end must be seen again where the inbox is emptied.
            return False
        if isinstance(item, str):
            if under_way.pop(item, None):
                llm.llm_engine.abort_request([item])
            continue
        try:
            _admit(llm, template, item)
            under_way[item.id] = item
        except (RowError, TeacherError) as error:
            item.answer.settle(error)
        except refused as error:
            item.answer.settle(RowError(f"vLLM refuses the request: {error}"))
        except Exception as error:
            # Not the request's fault: the engine has died, or vLLM has changed.
            kind = type(error).__name__
            item.answer.settle(TeacherError(f"vLLM takes no request ({kind}: {error})"))


def _admit(llm: Any, template: Mapping[str, Any], job: Job) -> None:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    job.asked = orjson.loads(job.body)
    tokens = prompt_tokens(job.path, job.asked, llm.get_tokenizer(), template)
    context = llm.llm_engine.model_config.max_model_len
    if len(tokens) >= context:
        raise RowError(
            f"the prompt has {len(tokens)} tokens, and the model's context is {context}: shorten the "
            "text, or raise teacher.context as far as the model allows",
            kind="context_length",
        )
    arguments = sampling_arguments(job.path, job.asked, room=context - len(tokens))
    if constraint := arguments.get("structured_outputs"):
        arguments["structured_outputs"] = StructuredOutputsParams(**constraint)
    params = SamplingParams(**arguments, output_kind=RequestOutputKind.FINAL_ONLY)
    # With its type it is taken as ready for the engine; older versions leave the type aside.
    llm.llm_engine.add_request(job.id, {"type": "token", "prompt_token_ids": tokens}, params)


def _finished(job: Job, output: Any) -> bytes | Exception:
    reason = output.outputs[0].finish_reason
    if reason not in ("stop", "length"):
        return RetryableError(f"vLLM gave the request up (finish reason: {reason})")
    return orjson.dumps(answer(job.path, job.asked, output))


def _refusals() -> tuple[type[Exception], ...]:
    """What newer versions of vLLM raise for a bad request; older ones raise ValueError."""
    try:
        from vllm import exceptions
    except ImportError:
        return ()
    found: type[Exception] | None = getattr(exceptions, "VLLMClientError", None)
    return (found,) if found else ()


def _watch(engine_core: Any) -> None:
    """End a step's wait where the engine's process has been killed, for lack of memory as a rule.

    vLLM (0.32) notices the death, and its ``step`` goes on waiting for an output for ever.
    """
    ends = [
        process.sentinel
        for process in multiprocessing.active_children()
        if "EngineCore" in process.name
    ]
    outputs = getattr(engine_core, "outputs_queue", None)
    if ends and outputs is not None:
        multiprocessing.connection.wait(ends)
        outputs.put_nowait(RuntimeError("its process has ended"))
