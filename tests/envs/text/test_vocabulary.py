"""The vocabulary is exact in both directions, and what is released never moves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.text import vocabulary
from palaestra.envs.text.vocabulary import TOKENS, VOCABULARY_HASH, VOCABULARY_SIZE, decode, encode, padded

RELEASED = ((451, "e8d622a81d2dbe70603b1b243393b31b"),)
"""Sizes and hashes of the released beginnings; a release adds a row, and no row ever changes."""

PIECES = st.sampled_from(
    [*vocabulary.WORDS, *vocabulary.SYLLABLES, *vocabulary.PUNCTUATION, *"0189", " ", "  ", "é", "A"]
)


@given(st.one_of(st.text(), st.lists(PIECES).map("".join), st.lists(PIECES).map(" ".join)))
def test_a_text_comes_back_exactly(text: str) -> None:
    ids = encode(text)
    assert decode(ids) == text
    assert all(len(vocabulary.SPECIALS) <= token < VOCABULARY_SIZE for token in ids)


@given(st.lists(st.integers(0, VOCABULARY_SIZE - 1)))
def test_any_tokens_have_a_text(ids: list[int]) -> None:
    assert decode(encode(decode(ids))) == decode(ids)


def test_lone_surrogates_come_back() -> None:
    assert decode(encode("a\ud800\udc00 b\udfff")) == "a\ud800\udc00 b\udfff"


@pytest.mark.parametrize(("size", "digest"), RELEASED)
def test_released_tokens_never_move(size: int, digest: str) -> None:
    assert vocabulary.prefix_hash(size) == digest


def test_tokens_are_different_and_the_hash_is_of_all() -> None:
    assert len(set(TOKENS)) == len(TOKENS) == VOCABULARY_SIZE
    assert vocabulary.prefix_hash(VOCABULARY_SIZE) == VOCABULARY_HASH
    assert vocabulary.prefix_hash(VOCABULARY_SIZE - 1) != VOCABULARY_HASH


def test_numbers_and_names_are_spelled_without_gaps() -> None:
    assert [TOKENS[token] for token in encode("room 16: move kabo | move ti")] == [
        *("room", "1", "6", ":", "move", "ka", "bo", "|", "move", "ti"),
    ]


def test_special_tokens_cannot_be_written() -> None:
    assert vocabulary.PAD not in encode("<pad>")
    assert decode([vocabulary.BOS, *encode("go to"), vocabulary.END, vocabulary.PAD]) == "go to"


@pytest.mark.parametrize("token", [-1, VOCABULARY_SIZE])
def test_ids_outside_the_vocabulary_are_refused(token: int) -> None:
    with pytest.raises(ValueError, match=f"contains {token}"):
        decode([token])


def test_padded_fills_and_cuts() -> None:
    np.testing.assert_array_equal(padded([5, 6], 4), np.array([5, 6, 0, 0], np.int32))
    np.testing.assert_array_equal(padded([5, 6, 7], 2), np.array([5, 6], np.int32))
    assert padded([], 3).dtype == np.int32
