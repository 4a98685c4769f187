"""Answers held to a list: the fields for each server, and servers that do not listen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from scripted_teacher import Body, ScriptedTeacher, says

from labelers import RetryableError, RowError, TeacherError
from labelers.structured import (
    DIALECTS,
    Dialect,
    constrained_text,
    probe,
    structured_choice,
)
from labelers.tasks import TaskError

LABELS = ("positive", 'so-called "news"', "a\\b\n")


def test_each_dialect_has_its_own_field() -> None:
    assert structured_choice(LABELS[:1], "vllm") == {"structured_outputs": {"choice": ["positive"]}}
    assert structured_choice(LABELS, "llama.cpp") == {
        "grammar": r'root ::= "positive" | "so-called \"news\"" | "a\\b\x0A"'
    }
    described = structured_choice(LABELS, "json_schema")["response_format"]
    assert described["type"] == "json_schema"
    schema = described["json_schema"]["schema"]
    assert schema["properties"] == {"label": {"type": "string", "enum": list(LABELS)}}
    # OpenAI's strict mode wants both.
    assert (schema["required"], schema["additionalProperties"]) == (["label"], False)


def test_a_completions_space_is_part_of_each_choice_but_not_of_json() -> None:
    said = structured_choice(("yes", "no"), "vllm", opening=" ")
    assert said == {"structured_outputs": {"choice": [" yes", " no"]}}
    said = structured_choice(("yes", "no"), "llama.cpp", opening=" ")
    assert said == {"grammar": 'root ::= " yes" | " no"'}
    assert structured_choice(("yes",), "json_schema", opening=" ") == structured_choice(
        ("yes",), "json_schema"
    )


@pytest.mark.parametrize("choices", [(), ("a", ""), ("a", "b", "a")])
def test_a_list_that_cannot_be_meant_is_refused(choices: Sequence[str]) -> None:
    with pytest.raises(TaskError, match="at least one is needed, none empty and each once"):
        structured_choice(choices, "vllm")


def test_an_unknown_dialect_is_refused_with_those_there_are() -> None:
    with pytest.raises(TaskError, match=r"'guided'.*'vllm', 'json_schema', 'llama\.cpp'"):
        structured_choice(("a",), "guided")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "dialect", "said"),
    [
        (" positive", "vllm", " positive"),
        ('{\n "label": "positive"}', "json_schema", "positive"),
        ('{"label": "posi', "json_schema", None),
        ('{"answer": "positive"}', "json_schema", None),
        ('{"label": 3}', "json_schema", None),
        ("positive", "json_schema", None),
        ('["label"]', "json_schema", None),
    ],
)
def test_what_a_constrained_answer_says(text: str, dialect: Dialect, said: str | None) -> None:
    assert constrained_text(text, dialect) == said


# -------------------------------------------------------------------------------------- the probe


def obeys(dialect: Dialect) -> Any:
    """A server that knows one dialect and leaves the fields of the others out without a word."""

    def answer(body: Body) -> Body:
        assert "kumquat" not in str(body.get("messages")), "the question gives its answer away"
        if dialect == "vllm" and "structured_outputs" in body:
            return says(body["structured_outputs"]["choice"][1])
        if dialect == "llama.cpp" and "grammar" in body:
            return says(body["grammar"].split('"')[1])
        if dialect == "json_schema" and "response_format" in body:
            schema = body["response_format"]["json_schema"]["schema"]
            return says(json.dumps({"label": schema["properties"]["label"]["enum"][0]}))
        return says("The capital of France is Paris.")

    return answer


def ask(teacher: ScriptedTeacher, dialects: Sequence[Dialect] | None = None, **how: Any) -> Dialect:
    return asyncio.run(probe(teacher, dialects, pause=0.0, **how))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_probe_finds_what_a_server_obeys(dialect: Dialect) -> None:
    teacher = ScriptedTeacher(obeys(dialect))
    assert ask(teacher) == dialect
    assert len(teacher.seen) == DIALECTS.index(dialect) + 1
    assert ask(ScriptedTeacher(obeys(dialect)), [dialect]) == dialect


def test_a_server_that_leaves_the_constraint_out_is_found_out() -> None:
    teacher = ScriptedTeacher(lambda body: says("The capital of France is Paris."))
    with pytest.raises(TeacherError) as caught:
        ask(teacher, ["vllm"])
    message = str(caught.value)
    assert message.startswith("scripted does not hold its answers to a list of labels. ")
    assert "structured_outputs (vllm): ignored" in message
    assert "it said 'The capital of France is Paris.'" in message
    assert "try 'json_schema' or 'llama.cpp', update the server" in message
    assert "probabilities from logprobs" in message


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            lambda body: says("Let me think", "length"),
            "no answer within 96 tokens, which began with",
        ),
        (lambda body: says(None), "it said ''"),
        (lambda body: b'{"choices": []}', "the answer is malformed"),
        (lambda body: b"<html>", "the answer is malformed"),
        (lambda body: RowError("Unrecognized field"), "refused (Unrecognized field)"),
    ],
)
def test_whatever_else_comes_is_no_obedience(script: Any, words: str) -> None:
    with pytest.raises(TeacherError) as caught:
        ask(ScriptedTeacher(script))
    assert str(caught.value).count(words) == 3, "each dialect is tried"


def test_an_overloaded_server_is_asked_again_and_a_dead_one_not_for_ever() -> None:
    answers: list[Any] = [RetryableError("busy"), RetryableError("busy", retry_after=0.0)]
    obedient = obeys("vllm")
    teacher = ScriptedTeacher(lambda body: answers.pop() if answers else obedient(body))
    assert ask(teacher) == "vllm"
    dead = ScriptedTeacher(lambda body: RetryableError("HTTP 503"))
    with pytest.raises(
        TeacherError, match=r"could not be asked whether .* HTTP 503 \(4 attempts\)"
    ):
        ask(dead)
    assert len(dead.seen) == 4


def test_a_refused_key_is_the_servers_own_error() -> None:
    with pytest.raises(TeacherError, match=r"^wrong key$"):
        ask(ScriptedTeacher(lambda body: TeacherError("wrong key")))
