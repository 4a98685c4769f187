"""A quote says what labeling then asks, prompt for prompt, and sends nothing itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scripted_teacher import (
    QUIZ,
    REVIEWS,
    SENTIMENT,
    Body,
    ScriptedTeacher,
    glad,
    reviews,
    run,
    says,
    scores,
    sentiment,
    thoughtful,
)

from labelers import OpenAICompatible, Prices, Store, TaskError, TeacherError
from labelers.exchanges import canonical, exchange_key
from labelers.prices import PRICES_AS_OF, known_prices, prices_of
from labelers.prompts import build_request
from labelers.quotes import quote
from labelers.token_counts import TokenCounter

SPLITS = ["train", "train", "train", "test"]


def words(text: str) -> int:
    return len(text.split())


def silent(**how: Any) -> ScriptedTeacher:
    """A teacher that fails the test if anything is sent to it."""
    return ScriptedTeacher(lambda body: AssertionError("a quote asked the teacher"), **how)


def continued(body: Body) -> Body:
    """What a base model says, in the wire format of completions."""
    if "logprobs" not in body:
        return {"choices": [{"text": " It says so.", "finish_reason": "stop"}], "usage": None}
    said = " positive" if glad(body) else " negative"
    logprobs = {"tokens": [said], "token_logprobs": [-0.1], "top_logprobs": [{said: -0.1}]}
    return {"choices": [{"text": said, "logprobs": logprobs, "finish_reason": "length"}]}


# ------------------------------------------------------------------------------- what would be asked


@pytest.mark.parametrize(
    ("script", "api", "how"),
    [
        (sentiment, "chat", {}),
        (sentiment, "chat", {"rationales": False}),
        (sentiment, "chat", {"rationales": 2, "max_rationale_tokens": 20}),
        (continued, "completions", {}),
        (thoughtful, "chat", {"mode": "cot", "max_tokens": 99}),
        (thoughtful, "chat", {"mode": "cot", "samples": 3, "temperature": 0.9}),
        (thoughtful, "chat", {"probabilities": "votes", "samples": 3}),
    ],
)
def test_labeling_then_asks_as_many_requests_and_the_prompts_shown(
    tmp_path: Path, script: Any, api: Any, how: dict[str, Any]
) -> None:
    data = reviews(split=SPLITS)
    teacher = silent(api=api, prefill=api == "completions")
    quoted = quote(data, SENTIMENT, teacher, store=tmp_path / "store", **how)
    assert (teacher.starts, teacher.seen) == (0, [])
    assert not (tmp_path / "store").exists()
    assert quoted.rows == 4
    assert len(quoted.prompts) == 3

    asked = ScriptedTeacher(script, api=api, prefill=api == "completions")
    labelled = run(script, tmp_path / "store", data, teacher=asked, **how)
    assert labelled["error"].isna().all()
    assert quoted.to_ask == len(asked.seen)
    sent = [
        body["prompt"] if "prompt" in body
        else "\n\n".join(f"[{m['role']}]\n{m['content']}" for m in body["messages"])
        for body in asked.seen
    ]  # fmt: skip
    assert list(quoted.prompts) == list(dict.fromkeys(sent))[:3]
    assert quoted.completion_tokens == sum(body["max_tokens"] for body in asked.seen)

    after = quote(data, SENTIMENT, teacher, store=tmp_path / "store", **how)
    assert (after.to_ask, after.prompt_tokens, after.completion_tokens) == (0, 0, 0)
    assert after.label.paid == after.label.requests == quoted.label.requests
    assert after.rationale.paid == after.rationale.requests == quoted.rationale.requests
    assert (after.prompts, after.notes) == ((), ())


def test_test_rows_are_labelled_but_not_explained(tmp_path: Path) -> None:
    quoted = quote(reviews(split=SPLITS), SENTIMENT, silent(), store=tmp_path / "store")
    assert (quoted.label.requests, quoted.rationale.requests) == (4, 3)
    thought = quote(
        reviews(split=SPLITS), SENTIMENT, silent(), store=tmp_path / "store", mode="cot", samples=5
    )
    assert (thought.label.requests, thought.rationale.requests) == (20, 0)


def test_what_is_in_the_store_is_not_charged_and_equal_rows_are_charged_once(
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    run(sentiment, store, reviews()[:2], rationales=False)
    twice = pd.concat([reviews(), reviews()], ignore_index=True)
    quoted = quote(
        twice, SENTIMENT, silent(), store=store, rationales=False, tokenizer=words, show=9
    )
    assert (quoted.label.requests, quoted.label.paid, quoted.label.repeated) == (8, 4, 2)
    assert quoted.to_ask == 2
    instruction = 9 + 10  # the task's, and how to answer
    first, second = (len(f"Review: {text}".split()) for text in REVIEWS[2:])
    assert quoted.prompt_tokens == 2 * (instruction + 2 * 4) + first + second
    assert [prompt.rpartition("\n")[2] for prompt in quoted.prompts] == [
        f"Review: {text}" for text in REVIEWS[2:]
    ]


def test_more_samples_cost_only_those_that_are_new(tmp_path: Path) -> None:
    how: dict[str, Any] = {"mode": "cot", "temperature": 0.7}
    run(thoughtful, tmp_path, samples=2, **how)
    quoted = quote(reviews(), SENTIMENT, silent(), store=tmp_path, samples=5, **how)
    assert (quoted.label.requests, quoted.label.paid, quoted.to_ask) == (20, 8, 12)


def test_a_rationale_is_quoted_for_the_longest_label_until_the_label_is_known(
    tmp_path: Path,
) -> None:
    data = pd.DataFrame({"question": ["Which one floats?"], "options": [["cork", "a heavy stone"]]})
    before = quote(data, QUIZ, silent(), store=tmp_path / "store", tokenizer=words)

    def by_letter(body: Body) -> Body:
        return scores({"A": 0.9, "B": 0.1}) if "logprobs" in body else says("It is light.")

    run(by_letter, tmp_path / "store", data, QUIZ, rationales=False)
    known = quote(data, QUIZ, silent(), store=tmp_path / "store", tokenizer=words)
    assert known.label.to_ask == 0
    assert before.rationale.prompt_tokens - known.rationale.prompt_tokens == 2
    assert "(a) cork" in known.prompts[0].splitlines()[-1]


def test_contextual_calibration_does_not_hinder_a_quote(tmp_path: Path) -> None:
    quoted = quote(
        reviews(), SENTIMENT, silent(), store=tmp_path / "store", calibration="contextual"
    )
    assert (quoted.label.requests, quoted.rationale.requests) == (4, 4)
    assert quoted.notes == ("three more requests for contextual calibration are not counted",)


def test_what_is_redacted_is_not_shown_in_the_prompts_either(tmp_path: Path) -> None:
    def redact(text: str) -> tuple[str, dict[str, int]]:
        return text.replace("strap", "[thing]"), {"thing": text.count("strap")}

    quoted = quote(reviews(), SENTIMENT, silent(), store=tmp_path / "store", redact=redact)
    assert "The [thing] broke on day two." in quoted.prompts[0]


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"task": QUIZ}, TaskError, "needs the column"),
        ({"teacher": silent(top_logprobs=0)}, TeacherError, "use mode `cot`"),
        ({"samples": 3}, TaskError, "several samples are drawn by"),
        ({"tokenizer": "nowhere/tokenizer.json"}, TaskError, "the tokenizer nowhere.* is no file"),
    ],
)
def test_what_labeling_would_refuse_is_refused(
    tmp_path: Path, how: dict[str, Any], error: type[Exception], said: str
) -> None:
    given = {"task": SENTIMENT, "teacher": silent(), "store": tmp_path / "store"} | how
    with pytest.raises(error, match=said):
        quote(reviews(), **given)


# ---------------------------------------------------------------------------------- tokens and costs


def test_tokens_are_estimated_by_bytes_and_that_is_said(tmp_path: Path) -> None:
    quoted = quote(reviews(), SENTIMENT, silent(), store=tmp_path / "store")
    assert quoted.counted_by == "estimated at 4 bytes of UTF-8 a token"
    count = TokenCounter()
    assert count({"prompt": "abcd" * 10}) == 10
    # A character of another script is about a token.
    assert count({"prompt": "日本語の文"}) == 4
    assert count({"messages": [{"role": "user", "content": "abcde"}]}) == 2 + 4


def test_tokens_are_counted_by_a_function_or_a_tokenizers_file(tmp_path: Path) -> None:
    body = build_request(
        SENTIMENT,
        "Review: The strap broke.",
        kind="cot",
        api="completions",
        model="m",
        max_tokens=9,
    ).body
    assert TokenCounter(words)(body) == len(body["prompt"].split())
    assert TokenCounter(words).name == "tokenizer words"

    vocabulary = {"[UNK]": 0, "The": 1, "strap": 2, "broke": 3, ".": 4}
    path = tmp_path / "tokenizer.json"
    path.write_text(
        json.dumps(
            {
                "version": "1.0",
                "truncation": {
                    "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0,
                },
                "padding": None,
                "added_tokens": [],
                "normalizer": None,
                "pre_tokenizer": {"type": "Whitespace"},
                "post_processor": None,
                "decoder": None,
                "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
            }
        )
    )  # fmt: skip
    count = TokenCounter(path)
    assert count.name == f"tokenizer {path}"
    # A tokenizer's file may cut texts off; what is counted is the whole.
    assert count({"prompt": "The strap broke.\n\nThe strap broke."}) == 8
    path.write_text("{}")
    with pytest.raises(TaskError, match=r"tokenizer\.json is no tokenizer\.json"):
        TokenCounter(path)


def stock(
    store: Store, count: int, *, run: str, tokens: int, every: float, start: float = 0
) -> None:
    """Answers to chain-of-thought requests, one every so many seconds."""
    identity = canonical(dict(silent().identity))
    for i in range(count):
        request = build_request(
            SENTIMENT, f"Review: {run} {i}.", kind="cot", api="chat", model="scripted-1",
            choices=SENTIMENT.labels, max_tokens=256,
        )  # fmt: skip
        body = canonical(request.body)
        answer = thoughtful(request.body)
        answer["usage"] = {"prompt_tokens": 50, "completion_tokens": tokens}
        moment = datetime(2026, 5, 1, tzinfo=UTC) + timedelta(seconds=start + i * every)
        store.put(
            exchange_key(identity, request.path, body), identity=identity, path=request.path,
            request=body, response=canonical(answer), run=run,
            time=moment.isoformat(timespec="milliseconds"),
        )  # fmt: skip


def test_costs_come_from_the_teachers_prices_and_half_of_it_by_batch(tmp_path: Path) -> None:
    teacher = silent(prices=Prices(2.0, 10.0))
    how: dict[str, Any] = {"mode": "cot", "tokenizer": words, "max_tokens": 100}
    quoted = quote(reviews(), SENTIMENT, teacher, store=tmp_path / "store", **how)
    assert quoted.completion_tokens == 400
    expected = (quoted.prompt_tokens * 2.0 + 400 * 10.0) / 1e6
    assert quoted.cost_usd == pytest.approx(expected)
    assert quoted.batch_cost_usd == pytest.approx(expected / 2)
    assert (quoted.prices_from, quoted.expected_cost_usd) == ("as given", None)

    unpriced = quote(reviews(), SENTIMENT, silent(), store=tmp_path / "store", **how)
    assert (unpriced.cost_usd, unpriced.batch_cost_usd) == (None, None)
    assert unpriced.prices_from == "no prices"


def test_twenty_stored_answers_tell_how_long_answers_are_and_how_fast_they_come(
    tmp_path: Path,
) -> None:
    teacher = silent(prices=Prices(2.0, 10.0))
    with Store(tmp_path) as store:
        stock(store, 19, run="spring", tokens=30, every=0.5)
        few = quote(reviews(), SENTIMENT, teacher, store=store, mode="cot")
        assert (few.expected_completion_tokens, few.rate, few.seconds) == (None, None, None)
        assert few.measured_on == 19
        stock(store, 21, run="summer", tokens=30, every=0.25, start=3600)
        quoted = quote(reviews(), SENTIMENT, teacher, store=store, mode="cot")
        # Answers to other questions say nothing of these.
        other = quote(reviews(), SENTIMENT, teacher, store=store, mode="cot", max_tokens=100)
        stranger = quote(reviews(), SENTIMENT, silent(revision="2"), store=store, mode="cot")
    assert quoted.expected_completion_tokens == 4 * 30
    assert quoted.expected_cost_usd == pytest.approx((quoted.prompt_tokens * 2 + 120 * 10) / 1e6)
    assert quoted.rate == pytest.approx(4.0)  # of the newest run alone
    assert quoted.seconds == pytest.approx(1.0)
    assert (other.expected_completion_tokens, other.rate) == (None, pytest.approx(4.0))
    assert (stranger.measured_on, stranger.rate) == (0, None)


def test_known_prices_are_for_openais_own_url_and_the_models_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert known_prices("gpt-4o-mini") == Prices(0.15, 0.60)
    assert known_prices("gpt-4.1-nano-2025-04-14") == Prices(0.10, 0.40)
    # The first gpt-4o was dearer, and an unknown model may cost anything.
    assert known_prices("gpt-4o-2024-05-13") is None
    assert known_prices("qwen2.5-7b") is None

    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    own = prices_of(OpenAICompatible(model="gpt-4o-mini"))
    assert own[0] == Prices(0.15, 0.60)
    assert PRICES_AS_OF in own[1]
    elsewhere = OpenAICompatible(model="gpt-4o-mini", base_url="http://127.0.0.1:8000/v1")
    assert prices_of(elsewhere) == (None, "no prices")
    given = OpenAICompatible(model="gpt-4o-mini", prices=Prices(1.0, 2.0))
    assert prices_of(given) == (Prices(1.0, 2.0), "as given")
