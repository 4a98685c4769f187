"""Redaction: what is taken out of a text, what stays, and how refusals read."""

from __future__ import annotations

import importlib.util
import re
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from labelers import privacy
from labelers.privacy import PrivacyError, Redaction
from labelers.teachers import RowError

needs_presidio = pytest.mark.skipif(
    importlib.util.find_spec("presidio_analyzer") is None,
    reason="the extra `privacy` (presidio-analyzer) is not installed",
)
EVERYTHING = (
    "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "MAC_ADDRESS", "CRYPTO",
    "URL", "US_SSN",
)  # fmt: skip


@needs_presidio
@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Write to jane.doe@example.com today.", "Write to <EMAIL_ADDRESS_1> today."),
        ("Our intranet: jane@corp.internal", "Our intranet: <EMAIL_ADDRESS_1>"),
        ("Call (212) 555-0187.", "Call <PHONE_NUMBER_1>."),
        ("Ruf +49 30 901820 an", "Ruf <PHONE_NUMBER_1> an"),
        ("My card is 4111 1111 1111 1111, thanks", "My card is <CREDIT_CARD_1>, thanks"),
        ("Pay to DE89 3704 0044 0532 0130 00 please", "Pay to <IBAN_CODE_1> please"),
        ("The router is 192.168.0.17 here", "The router is <IP_ADDRESS_1> here"),
        ("The router is 2001:db8::1 here", "The router is <IP_ADDRESS_1> here"),
        ("Its MAC is 00:1A:2b:3c:4d:5e.", "Its MAC is <MAC_ADDRESS_1>."),
        ("Send to 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa now", "Send to <CRYPTO_1> now"),
        ("See https://forum.example.com/u/jane.", "See <URL_1>."),
        ('It says "https://example.com/jane" there', 'It says "<URL_1>" there'),
        ("SSN 536-22-1234 on file", "SSN <US_SSN_1> on file"),
    ],
)
def test_personal_data_is_replaced_and_the_rest_stays(text: str, redacted: str) -> None:
    result, counts = Redaction(entities=EVERYTHING).redact(text)
    assert result == redacted
    assert counts.total() == 1
    assert f"<{next(iter(counts))}_1>" in redacted


@needs_presidio
@pytest.mark.parametrize(
    "text",
    [
        "Works great.it is small and the screen is sharp.",  # no URL, though .it is a country
        "Card 4111 1111 1111 1112 fails Luhn's check.",
        "Posted january 13, 2004 at 12:30: 5 stars, model ad-2600, 10.5 mm.",
        "Version 3.10.2 of the firmware :: still broken.",
        "",
    ],
)
def test_ordinary_text_comes_back_as_it_is(text: str) -> None:
    entities = tuple(e for e in EVERYTHING if e != "PHONE_NUMBER")
    assert Redaction(entities=entities).redact(text) == (text, Counter())


@needs_presidio
def test_a_value_keeps_its_number_within_a_text_however_it_is_written() -> None:
    text = (
        "jane@example.com wrote to bob@example.com; JANE@example.com rang (212) 555-0187, "
        "then 212-555-0187."
    )
    redacted, counts = Redaction().redact(text)
    assert redacted == (
        "<EMAIL_ADDRESS_1> wrote to <EMAIL_ADDRESS_2>; <EMAIL_ADDRESS_1> rang <PHONE_NUMBER_1>, "
        "then <PHONE_NUMBER_1>."
    )
    assert counts == {"EMAIL_ADDRESS": 3, "PHONE_NUMBER": 2}


@needs_presidio
def test_what_was_redacted_before_stays_and_its_numbers_are_not_given_twice() -> None:
    redaction = Redaction()
    once, _ = redaction.redact("Ask jane@example.com.")
    assert redaction.redact(once) == (once, Counter())
    assert redaction.redact(f"{once} Or bob@example.com.") == (
        "Ask <EMAIL_ADDRESS_1>. Or <EMAIL_ADDRESS_2>.",
        {"EMAIL_ADDRESS": 1},
    )


@needs_presidio
def test_only_the_chosen_entities_are_replaced() -> None:
    text = "jane@example.com, 192.168.0.17"
    assert Redaction(entities=("IP_ADDRESS",)).redact(text)[0] == "jane@example.com, <IP_ADDRESS_1>"


@needs_presidio
def test_the_regions_decide_which_national_numbers_are_known() -> None:
    text = "Ring 0171 2345678 or +49 171 2345678."
    german = Redaction(entities=("PHONE_NUMBER",), regions=("DE",))
    american = Redaction(entities=("PHONE_NUMBER",), regions=("US",))
    assert german.redact(text)[0] == "Ring <PHONE_NUMBER_1> or <PHONE_NUMBER_2>."
    assert american.redact(text)[0] == "Ring 0171 2345678 or <PHONE_NUMBER_1>."


@needs_presidio
def test_overlapping_finds_leave_nothing_behind() -> None:
    # An e-mail address within a URL.
    text = "Open https://example.com/?from=jane@example.com&x=1 now"
    redacted, counts = Redaction(entities=("URL", "EMAIL_ADDRESS")).redact(text)
    assert redacted == "Open <URL_1> now"
    assert counts == {"URL": 1}


@needs_presidio
def test_nothing_is_asked_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("redaction opened a connection")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    redacted, _ = Redaction(entities=EVERYTHING).redact("jane@example.co.uk at https://example.com")
    assert redacted == "<EMAIL_ADDRESS_1> at <URL_1>"


@needs_presidio
def test_a_search_cut_short_refuses_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    redaction = Redaction()
    monkeypatch.setattr(privacy, "_pattern_timeout", lambda: 0.0)
    with pytest.raises(RowError, match="not known to be free of it: shorten the row") as refusal:
        redaction.redact("Write to jane@example.com.")
    assert refusal.value.kind == "redaction"
    assert "jane" not in str(refusal.value)


@needs_presidio
def test_names_are_found_by_the_pipeline_that_the_user_names(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns(
        [
            {"label": "PERSON", "pattern": "Jane Doe"},
            {"label": "GPE", "pattern": "Leeds"},
            {"label": "DATE", "pattern": "Monday"},
        ]
    )
    pipeline.to_disk(tmp_path / "names")
    redaction = Redaction(
        entities=("PERSON", "LOCATION", "EMAIL_ADDRESS"), model=str(tmp_path / "names")
    )
    redacted, counts = redaction.redact("Jane Doe of Leeds (jd@example.com) called on Monday.")
    assert redacted == "<PERSON_1> of <LOCATION_1> (<EMAIL_ADDRESS_1>) called on Monday."
    assert counts == {"PERSON": 1, "LOCATION": 1, "EMAIL_ADDRESS": 1}


@needs_presidio
def test_a_model_that_is_not_installed_is_named() -> None:
    with pytest.raises(PrivacyError, match="python -m spacy download en_names"):
        Redaction(entities=("PERSON",), model="en_names")


@needs_presidio
def test_an_unknown_region_is_refused() -> None:
    with pytest.raises(PrivacyError, match="holds 'Germany'"):
        Redaction(regions=("Germany",))


def test_names_without_a_model_are_refused_with_the_remedy() -> None:
    with pytest.raises(PrivacyError, match="'PERSON', which no pattern finds: name an installed"):
        Redaction(entities=("EMAIL_ADDRESS", "PERSON"))


@pytest.mark.parametrize("entities", [(), ("EMAIL",)])
def test_entities_are_checked(entities: tuple[str, ...]) -> None:
    with pytest.raises(PrivacyError, match="choose among EMAIL_ADDRESS, PHONE_NUMBER"):
        Redaction(entities=entities)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    with pytest.raises(PrivacyError, match=r"pip install 'curate-distill\[privacy\]'"):
        Redaction()


def test_importing_the_labelers_does_not_load_the_extra() -> None:
    code = "import labelers.privacy, sys; print({'presidio_analyzer', 'spacy'} & set(sys.modules))"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert shown.stdout.strip() == "set()"


@needs_presidio
def test_the_example_in_the_docs_runs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "privacy.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python no-run\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/privacy.md", "exec"), names)  # noqa: S102
    assert (
        names["text"]
        == "<EMAIL_ADDRESS_1> wrote twice; call <EMAIL_ADDRESS_1> or <PHONE_NUMBER_1>."
    )
    assert names["counts"] == {"EMAIL_ADDRESS": 2, "PHONE_NUMBER": 1}


def test_the_docs_list_every_entity() -> None:
    page = (Path(__file__).parents[1] / "docs" / "privacy.md").read_text(encoding="utf-8")
    for entity in (*EVERYTHING, "PERSON", "LOCATION", "ORGANIZATION"):
        assert f"| `{entity}` |" in page
