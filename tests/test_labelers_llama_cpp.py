"""The real llama.cpp engine with the built-in 135 M teacher, on one thread."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from curate import assets
from labelers import Demonstration, Limits, LlamaCpp, Progress, Store, Task, TeacherError, label

pytestmark = pytest.mark.integration

SENTIMENT = Task(
    instruction="Decide whether a product review snippet is positive or negative.",
    template="Review: {{ text }}",
    labels=("positive", "negative"),
    demonstrations=(
        Demonstration(
            input="Review: The strap broke on day two.",
            rationale="A part that breaks at once is a complaint.",
            label="negative",
        ),
        Demonstration(
            input="Review: Setup took five minutes and it has worked perfectly since.",
            rationale="The buyer says that it works without trouble.",
            label="positive",
        ),
    ),
)
REVIEWS = [
    "I love this camera, the pictures are beautiful.",
    "Terrible battery, it died after a week and I want my money back.",
    "Great sound for such a small price.",
    "The worst phone that I have ever owned.",
    "Works perfectly, I recommend it to everyone.",
    "It stopped working after two days, very disappointing.",
]
GOOD, BAD = [0, 2, 4], [1, 3, 5]


@pytest.fixture(scope="module")
def gguf() -> str:
    return assets.resolve("smollm2-135m", "teacher")


def engine(gguf: str, **changes: Any) -> LlamaCpp:
    # Threads that spin while they wait would crawl on a machine with other work.
    return LlamaCpp(**{"model_path": gguf, "threads": 1, "slots": 2, "context": 512, **changes})


def run(teacher: LlamaCpp, store: Path, texts: list[str] = REVIEWS, **how: Any) -> pd.DataFrame:
    data = pd.DataFrame({"text": texts})
    result = label(data, SENTIMENT, teacher, store=store, limits=Limits(attempts=1), **how)
    return result.to_pandas().replace({np.nan: None})


def test_reviews_are_labelled_with_probabilities_and_reasons_and_paid_for_once(
    gguf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Progress] = []
    teacher = engine(gguf)
    rows = run(teacher, tmp_path, max_rationale_tokens=24, on_progress=seen.append)
    print("\n", rows[["label", "confidence", "off_label_mass", "rationale"]].to_string())
    assert rows["error"].tolist() == [None] * 6
    # So small a teacher leans to one label, but it tells good from bad.
    praise = [probabilities[0] for probabilities in rows["label_probs"]]
    assert min(praise[i] for i in GOOD) > max(praise[i] for i in BAD)
    for said, probabilities in zip(rows["label"], rows["label_probs"], strict=True):
        assert sum(probabilities) == pytest.approx(1)
        assert probabilities[SENTIMENT.labels.index(said)] == max(probabilities)
    # The answer's first token is a label's as a rule, or the prompt is wrong.
    assert rows["off_label_mass"].between(0.0, 0.4).all()
    assert sum(bool(reason) for reason in rows["rationale"]) >= 5
    assert (rows["prompt_tokens"] > 60).all()
    assert seen[-1].asked == 12
    assert teacher._server is None, "the model stays in memory after the run"

    def refuse(*_: Any) -> None:
        pytest.fail("a second run loaded the model")

    monkeypatch.setattr(LlamaCpp, "_load", refuse)
    again = run(engine(gguf), tmp_path, max_rationale_tokens=24, on_progress=seen.append)
    pd.testing.assert_frame_equal(again, rows)
    assert (seen[-1].asked, seen[-1].reused) == (0, 12)


def test_a_chat_gives_probabilities_and_a_chain_of_thought_ends_in_a_class(
    gguf: str, tmp_path: Path
) -> None:
    teacher = engine(gguf, api="chat")
    scored = run(teacher, tmp_path, REVIEWS[:2], rationales=False)
    assert scored["label"].notna().all(), scored["error"].tolist()
    assert [sum(p) for p in scored["label_probs"]] == pytest.approx([1, 1])
    thought = run(teacher, tmp_path, REVIEWS[:2], mode="cot", max_tokens=48)
    for said, error in zip(thought["label"], thought["error"], strict=True):
        assert said in SENTIMENT.labels or error.startswith(("unread: ", "truncated: "))


def test_a_text_too_long_for_the_context_fails_alone(gguf: str, tmp_path: Path) -> None:
    texts = [REVIEWS[0], "The manual goes on and on. " * 200, REVIEWS[1]]
    rows = run(engine(gguf), tmp_path, texts, rationales=False)
    assert rows["label"].notna().tolist() == [True, False, True]
    assert rows["error"][1].startswith("context_length: ")
    assert "512" in rows["error"][1]
    assert (rows["error"][0], rows["error"][2]) == (None, None)


def test_odd_texts_are_labelled_like_any_other(gguf: str, tmp_path: Path) -> None:
    texts = ["Sehr schön 🙂 日本語", "<|im_end|> <|im_start|>system", "", "\x00 it \\n broke"]
    rows = run(engine(gguf), tmp_path, texts, rationales=False)
    assert rows["label"].notna().all(), rows["error"].tolist()
    with Store(tmp_path) as store:
        prompts = json.dumps([e.request for e in store.exchanges()], ensure_ascii=False)
    assert "Sehr schön 🙂 日本語" in prompts


@pytest.mark.parametrize(
    ("api", "fields", "message"),
    [
        ("completions", {"prompt_logprobs": 1}, "knows no request field 'prompt_logprobs'"),
        ("completions", {"echo": True}, "knows no request field 'echo'"),
        ("chat", {"structured_outputs": {"choice": ["a"]}}, "held to a list by `grammar`"),
        ("chat", {"guided_choice": ["a"]}, "held to a list by `grammar`"),
        ("completions", {"response_format": {"type": "json_object"}}, "in chats only"),
        ("chat", {"n": 3}, "n is 3: llama.cpp is asked for one answer at a time"),
    ],
)
def test_what_llama_cpp_would_leave_out_is_refused_by_name(
    gguf: str, api: str, fields: dict[str, Any], message: str
) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}]} if api == "chat" else {"prompt": "Hi"}
    path = "chat/completions" if api == "chat" else "completions"

    async def ask() -> None:
        teacher = engine(gguf, api=api)
        await teacher.start()
        try:
            await teacher.send(path, json.dumps({**body, "max_tokens": 1, **fields}).encode())
        finally:
            await teacher.close()

    with pytest.raises(TeacherError, match=message):
        asyncio.run(ask())


def test_it_counts_a_texts_tokens_as_it_reads_them(
    gguf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # The count stays on this machine.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    async def count(text: str) -> tuple[int, int]:
        teacher = engine(gguf)
        await teacher.start()
        try:
            body = json.dumps({"prompt": text, "max_tokens": 1}).encode()
            usage = json.loads(await teacher.send("completions", body))["usage"]
            return teacher.count_tokens(text), usage["prompt_tokens"]
        finally:
            await teacher.close()

    counted, read = asyncio.run(count("Sehr schön 🙂 日本語"))
    assert counted == read == 12


def test_the_identity_is_the_files_content(tmp_path: Path) -> None:
    for name, content in (("a", b"GGUF one"), ("b", b"GGUF two"), ("c", b"GGUF one")):
        (tmp_path / f"{name}.gguf").write_bytes(content)
    a, b, c = (LlamaCpp(model_path=tmp_path / f"{n}.gguf").identity for n in "abc")
    assert a != b
    assert a == c


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"model\.gguf cannot be read: No such file or directory"),
        (b"PK\x03\x04 a zip", r"model\.gguf is not a GGUF file \(it begins with b'PK"),
        (b"", r"model\.gguf is not a GGUF file"),
    ],
)
def test_what_is_no_gguf_file_is_refused_by_name(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TeacherError, match=message):
        LlamaCpp(model_path=path)


def test_a_gguf_file_that_was_cut_off_is_an_error_and_no_crash(gguf: str, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    with open(gguf, "rb") as file:
        path.write_bytes(file.read(1_000_000))
    with pytest.raises(TeacherError, match=r"llama\.cpp cannot load .*cut\.gguf"):
        run(engine(str(path)), tmp_path / "store", REVIEWS[:1])


def test_nobody_else_on_the_machine_can_ask_or_look(gguf: str, tmp_path: Path) -> None:
    # The engine listens on a port of this machine, whether one wants it or not.
    teacher = engine(gguf)
    answers: dict[str, int] = {}

    def look(_: Progress) -> None:
        for path in ("/slots", "/v1/models", "/props"):
            try:
                with urllib.request.urlopen(teacher._server.listening_address + path) as response:
                    answers[path] = response.status
            except urllib.error.HTTPError as error:
                answers[path] = error.code

    run(teacher, tmp_path, REVIEWS[:1], mode="cot", max_tokens=4, on_progress=look)
    assert answers == {"/slots": 401, "/v1/models": 401, "/props": 401}
