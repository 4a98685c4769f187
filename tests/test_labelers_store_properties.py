"""The store's key and its lines, for any request: nothing is mixed up, nothing is lost."""

from __future__ import annotations

import json
import tempfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labelers import Store
from labelers.exchanges import canonical, exchange_key

IDENTITY = canonical({"model": "m", "revision": "1"})
#: Any text that is Unicode: all but halves of surrogate pairs.
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
#: Whole numbers as far as JSON readers agree on them.
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    SCALARS | NUMBERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(TEXT, JSON, max_size=4)
#: A busy machine is no reason to fail.
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)

CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Decide whether a review is positive or negative."},
        {"role": "user", "content": "Review: The strap broke on day two."},
    ],
    "max_tokens": 8,
    "temperature": 0.0,
    "logprobs": True,
    "top_logprobs": 20,
    "response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": ["a", "b"]}}},
}


def key(
    body: dict[str, Any], *, identity: bytes = IDENTITY, path: str = "p", sample: int = 0
) -> bytes:
    return exchange_key(identity, path, canonical(body), sample)


def changed(body: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy of nested JSON with another value in one place."""
    copy = json.loads(json.dumps(body))
    inner = copy
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return copy


def shuffled(value: Any, draw: Any) -> Any:
    """The same JSON with the keys of every object in another order."""
    if isinstance(value, dict):
        names = draw(st.permutations(list(value)))
        return {name: shuffled(value[name], draw) for name in names}
    return [shuffled(v, draw) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "place",
    [
        ("model",),
        ("messages", 0, "content"),
        ("messages", 1, "content"),
        ("messages", 1, "role"),
        ("response_format", "json_schema", "schema", "enum", 1),
        ("an extra field",),
    ],
)
@QUICK
@given(text=TEXT)
def test_every_text_of_a_request_is_in_the_key(place: tuple[Any, ...], text: str) -> None:
    other = changed(CHAT, place, text)
    assert (key(other) == key(CHAT)) == (other == CHAT)


@pytest.mark.parametrize("field", ["max_tokens", "temperature", "top_logprobs", "seed"])
@QUICK
@given(one=NUMBERS, other=NUMBERS)
def test_every_setting_is_in_the_key(field: str, one: float, other: float) -> None:
    first, second = CHAT | {field: one}, CHAT | {field: other}
    same = json.dumps(one) == json.dumps(other)
    assert (key(first) == key(second)) == same


@QUICK
@given(model=TEXT, revision=TEXT, path=TEXT, sample=st.integers(0, 10_000))
def test_the_teacher_the_path_and_the_sample_are_in_the_key(
    model: str, revision: str, path: str, sample: int
) -> None:
    identity = canonical({"model": model, "revision": revision})
    same = (identity, path, sample) == (IDENTITY, "p", 0)
    assert (key(CHAT, identity=identity, path=path, sample=sample) == key(CHAT)) == same


@QUICK
@given(body=BODIES, data=st.data())
def test_the_order_in_which_keys_are_written_makes_no_difference(
    body: dict[str, Any], data: Any
) -> None:
    assert key(shuffled(body, data.draw)) == key(body)


@QUICK
@given(
    first=st.tuples(BODIES, BODIES, TEXT, st.integers(0, 200)),
    second=st.tuples(BODIES, BODIES, TEXT, st.integers(0, 200)),
)
def test_different_requests_never_share_a_key(first: Any, second: Any) -> None:
    def parts(of: Any) -> tuple[bytes, bytes, str, int]:
        return canonical(of[0]), canonical(of[1]), of[2], of[3]

    def address(of: Any) -> bytes:
        identity, body, path, sample = parts(of)
        return exchange_key(identity, path, body, sample)

    assert (address(first) == address(second)) == (parts(first) == parts(second))


@QUICK
@given(identity=BODIES, path=TEXT, body=BODIES, sample=st.integers(0, 99), cut=st.integers(0, 200))
def test_what_stands_at_the_end_of_one_part_is_not_taken_for_the_next(
    identity: dict[str, Any], path: str, body: dict[str, Any], sample: int, cut: int
) -> None:
    written = canonical(body)
    # The same bytes in a row, parted elsewhere: the body's beginning is moved to the path.
    moved = written[: cut % (len(written) + 1)].decode("utf-8", "ignore")
    rest = written[len(moved.encode()) :]
    for glue in ("", "\0"):
        shifted = path + glue + moved
        same = (shifted, rest) == (path, written)
        keys = {
            exchange_key(canonical(identity), path, written, sample),
            exchange_key(canonical(identity), shifted, rest, sample),
        }
        assert (len(keys) == 1) == same


@QUICK
@given(
    requests=st.lists(
        st.tuples(BODIES, BODIES, TEXT, TEXT, st.integers(0, 9), st.none() | st.floats(0, 1e6)),
        max_size=5,
    ),
    layout=st.sampled_from([None, 0, 2]),
)
def test_whatever_json_can_carry_comes_back_as_it_was(requests: Any, layout: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        expected = {}
        with Store(folder) as store:
            for body, response, path, run, sample, seconds in requests:
                address = key(body, path=path, sample=sample)
                store.put(
                    address, identity=IDENTITY, path=path, request=canonical(body),
                    response=json.dumps(response, indent=layout, ensure_ascii=False).encode(),
                    sample=sample, run=run, seconds=seconds,
                )  # fmt: skip
                expected[address] = (body, response, path, run, sample, seconds)
        with Store(folder) as store:
            assert store.damaged == 0
            assert set(store) == set(expected)
            for address, (body, response, path, run, sample, seconds) in expected.items():
                found = store.read(address)
                assert found is not None
                assert (found.request, found.response) == (body, response)
                assert (found.path, found.run, found.sample) == (path, run, sample)
                assert (found.seconds, found.key) == (seconds, address.hex())
                assert store.get(address) == response
