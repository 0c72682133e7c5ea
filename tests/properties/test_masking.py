"""What leaves the house: no known secret in any form, and the shape of data instead of the data."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_engines.domain.masking import Masker
from agent_engines.domain.redaction import redacted_text
from agent_engines.domain.shapes import outlined, shape

secrets = st.text(min_size=8, max_size=40).filter(
    lambda one: one.strip() == one and "***" not in one and "*" not in one
)
around = st.text(max_size=40)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda one: st.lists(one) | st.dictionaries(st.text(), one),
    max_leaves=12,
)


@settings(max_examples=25)
@given(secrets, around, around)
def test_a_known_secret_is_found_in_text_in_urls_and_in_documents(secret: str, before: str, after: str) -> None:
    masker = Masker([secret])
    said = f"{before}{secret}{after}\n{quote(secret, safe='')} {json.dumps({'said': secret}, ensure_ascii=False)}"
    for text in (masker.text(said), masker.json({"said": said, "list": [secret]})):
        assert secret not in text
        assert quote(secret, safe="") not in text


def test_short_secrets_hide_words_and_not_numbers_they_happen_to_be_part_of() -> None:
    assert Masker(["1234", "true"]).text("pin 1234, 512345 bytes, true") == "pin ***, 512345 bytes, true"


def test_the_longer_of_two_secrets_is_hidden_whole() -> None:
    assert Masker(["abcdefgh", "abcdefghijkl"]).text("x abcdefghijkl y") == "x *** y"


def test_secrets_nobody_told_of_are_found_by_their_shape() -> None:
    seed, key = "SU" + "A" * 56, "ae_key1_0123456789abcdefghij"
    text = Masker([]).text(f'seed {seed} key {key} \'{{"password": "geheim"}}\' kept')
    assert text == "seed *** key *** '{\"password\": ***}' kept"


@settings(max_examples=25)
@given(plain)
def test_a_shape_says_nothing_of_what_was_there(value: Any) -> None:
    canary = "canary-in-the-data"
    assert canary not in json.dumps(shape({"field": [canary, {"deeper": canary}], "rest": value}))


def test_an_outline_keeps_how_it_went_and_hides_what_it_was() -> None:
    record = {
        "task_id": "t",
        "status": "failed",
        "error": {"type": "E", "message": "m", "data": "x"},
        "result": "abc",
        "new_field": [1],
    }
    assert outlined({"items": [record]})["items"] == [
        {
            "task_id": "t",
            "status": "failed",
            "error": {"type": "E", "message": "m", "data": "text of 1"},
            "result": "text of 3",
            "new_field": ["list of 1", "number"],
        }
    ]


SHAPES = (
    "password={}", "passwd: {}", "SECRET={}", "token={}", "api_key={}", "api-key: {}", "apikey={}", "bearer {}", "basic {}",
    "nats://{}@host", "postgres://user:{}@host",
)  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=20)
@given(large=st.lists(st.booleans(), min_size=20, max_size=20), before=st.sampled_from(("", "said ", "\u0131 ")))
def test_every_shape_of_a_secret_is_found_whatever_its_case(shape: str, large: list[bool], before: str) -> None:
    opening = "".join(letter.upper() if big else letter.lower() for letter, big in zip(shape, large * 2, strict=False))
    assert "0d4c1e5b7a" not in redacted_text(before + opening.format("0d4c1e5b7a"))
