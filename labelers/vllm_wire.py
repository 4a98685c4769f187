"""OpenAI-style requests as vLLM's sampling arguments, and its outputs as a server's answers.

The answers are those of vLLM's own server, field by field, so that a store, a reader of
probabilities and a person see no difference between the server and the engine in this process.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from labelers.teachers import RowError, TeacherError

CHAT = "chat/completions"
#: What a completion is cut at where the request does not say; a chat goes on to the context's end.
COMPLETION_TOKENS = 16
#: JSON has no infinity: a token that a constraint forbids is shown so.
_LEAST = -9999.0
_PASSED_ON = (
    "temperature", "stop", "seed", "top_p", "top_k", "min_p", "min_tokens", "stop_token_ids",
    "presence_penalty", "frequency_penalty", "repetition_penalty", "prompt_logprobs", "ignore_eos",
)  # fmt: skip
#: Fields that are read here, and those that say nothing about the answer.
_READ = (
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "logprobs",
    "top_logprobs", "structured_outputs", "response_format", "chat_template_kwargs",
    "n", "stream", "user",
)  # fmt: skip
_CONSTRAINTS = ("choice", "json", "regex", "grammar", "json_object", "structural_tag")
_MANNERS = ("disable_additional_properties", "whitespace_pattern")


def prompt_tokens(
    path: str, body: Mapping[str, Any], tokenizer: Any, template: Mapping[str, Any]
) -> list[int]:
    """Token ids of a request's prompt: the text's, or the messages' in the model's chat template.

    Args:
        path: ``chat/completions`` or ``completions``.
        body: The request.
        tokenizer: vLLM's tokenizer.
        template: Variables for the chat template; the request's ``chat_template_kwargs`` win.

    Raises:
        TeacherError: If the model has no chat template.
        RowError: If the template refuses these messages.
    """
    if path != CHAT:
        return list(tokenizer.encode(body["prompt"]))
    variables = {**template, **(body.get("chat_template_kwargs") or {})}
    try:
        return list(
            tokenizer.apply_chat_template(
                body["messages"],
                tokenize=True,
                add_generation_prompt=True,
                return_dict=False,
                **variables,
            )
        )
    except Exception as error:  # A template may raise whatever it likes.
        if not getattr(tokenizer, "chat_template", True):
            raise TeacherError(
                f"the model {body.get('model')!r} has no chat template: use `api: completions`"
            ) from error
        raise RowError(f"the model's chat template refuses the messages: {error}") from error


def sampling_arguments(path: str, body: Mapping[str, Any], *, room: int) -> dict[str, Any]:
    """Keyword arguments of ``vllm.SamplingParams``; a constraint stays a mapping.

    Args:
        path: ``chat/completions`` or ``completions``.
        body: The request.
        room: Tokens that are left in the context after the prompt.

    Raises:
        TeacherError: If the request holds a field that would be ignored.
    """
    unknown = sorted(set(body) - {*_PASSED_ON, *_READ})
    if unknown:
        raise TeacherError(
            f"the vLLM engine knows no request field {', '.join(map(repr, unknown))}, and leaving it "
            f"out would change the answers: it knows {', '.join(sorted({*_PASSED_ON, *_READ}))}"
        )
    for name, wanted in (("n", 1), ("stream", False)):
        if body.get(name) not in (None, wanted):
            raise TeacherError(
                f"the vLLM engine answers with one text at once, and {name} is {body[name]!r}: ask "
                "for each sample by a request of its own"
            )
    arguments = {name: body[name] for name in _PASSED_ON if body.get(name) is not None}
    asked = body.get("max_completion_tokens") or body.get("max_tokens")
    if asked is None:
        asked = room if path == CHAT else COMPLETION_TOKENS
    arguments["max_tokens"] = min(asked, room)
    if path == CHAT:
        if body.get("logprobs"):
            arguments["logprobs"] = body.get("top_logprobs") or 0
    elif body.get("logprobs") is not None:
        arguments["logprobs"] = int(body["logprobs"])
    constraint = _constraint(body)
    if constraint is not None:
        arguments["structured_outputs"] = constraint
    return arguments


def _constraint(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The fields of ``vllm.sampling_params.StructuredOutputsParams``, or None."""
    wanted = body.get("response_format") or {}
    kind = wanted.get("type", "text")
    if kind == "json_schema":
        return {"json": wanted["json_schema"]["schema"]}
    if kind == "json_object":
        return {"json_object": True}
    if kind != "text":
        raise TeacherError(
            f"response_format.type is {kind!r}: the vLLM engine knows 'text', 'json_object' and "
            "'json_schema'"
        )
    given = body.get("structured_outputs")
    if given is None:
        return None
    if not set(given) <= {*_CONSTRAINTS, *_MANNERS} or not set(given) & set(_CONSTRAINTS):
        raise TeacherError(
            f"structured_outputs is {given!r}: it takes one of {', '.join(_CONSTRAINTS)}, and with it "
            f"{', '.join(_MANNERS)}"
        )
    return dict(given)


def answer(path: str, body: Mapping[str, Any], output: Any) -> dict[str, Any]:
    """The body of a server's answer.

    Args:
        path: ``chat/completions`` or ``completions``.
        body: The request.
        output: A finished ``vllm.RequestOutput``.
    """
    made = output.outputs[0]
    chat = path == CHAT
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": made.finish_reason or "stop",
        "stop_reason": made.stop_reason,
        "logprobs": None,
    }
    if made.logprobs is not None:
        most = (body.get("top_logprobs") or 0) if chat else int(body["logprobs"])
        positions = list(zip(made.token_ids, made.logprobs, strict=True))
        choice["logprobs"] = _of_chat(positions, most) if chat else _of_text(positions, most)
    scores = None
    if output.prompt_logprobs is not None:
        scores = [_scores(position) for position in output.prompt_logprobs]
    if chat:
        choice["message"] = {"role": "assistant", "content": made.text}
    else:
        choice |= {"text": made.text, "prompt_logprobs": scores}
    read, written = len(output.prompt_token_ids), len(made.token_ids)
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{output.request_id}",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        "model": body.get("model"),
        "choices": [choice],
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        },
        **({"prompt_logprobs": scores} if chat else {}),
    }


def _of_chat(positions: Iterable[tuple[int, Any]], most: int) -> dict[str, Any]:
    """``logprobs.content``: each token with its ``most`` likeliest alternatives."""
    content = []
    for token_id, position in positions:
        entries = [_entry(value) for value in position.values()]
        content.append({**_entry(position[token_id]), "top_logprobs": entries[:most]})
    return {"content": content}


def _entry(value: Any) -> dict[str, Any]:
    token = value.decoded_token or ""
    return {
        "token": token,
        "logprob": max(value.logprob, _LEAST),
        "bytes": list(token.encode("utf-8", "replace")),
    }


def _of_text(positions: Iterable[tuple[int, Any]], most: int) -> dict[str, Any]:
    """Parallel lists; the mappings hold the chosen token and the ``most`` likeliest."""
    tokens: list[str] = []
    logprobs: list[float] = []
    tops: list[dict[str, float]] = []
    offsets: list[int] = []
    offset = 0
    for token_id, position in positions:
        token = position[token_id].decoded_token or ""
        tokens.append(token)
        logprobs.append(max(position[token_id].logprob, _LEAST))
        # Two tokens of one text share an entry, of which the last stays: so it is on the server.
        shown = list(position.values())[: most + 1]
        tops.append({v.decoded_token or "": max(v.logprob, _LEAST) for v in shown})
        offsets.append(offset)
        offset += len(token)
    return {
        "text_offset": offsets, "token_logprobs": logprobs, "tokens": tokens, "top_logprobs": tops,
    }  # fmt: skip


def _scores(position: Mapping[int, Any] | None) -> dict[str, Any] | None:
    """One place of the prompt by token id, the prompt's own token first; nothing for the first."""
    if position is None:
        return None
    return {
        str(token_id): {
            "logprob": max(value.logprob, _LEAST),
            "rank": value.rank,
            "decoded_token": value.decoded_token,
        }
        for token_id, value in position.items()
    }
