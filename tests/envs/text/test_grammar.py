"""Actions and their words: parser, token reader and trie agree with one another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.text.grammar import EMPTY, REJECT_CODES, UNKNOWN, Grammar, Reject, Trie, read_action_tokens
from palaestra.envs.text.vocabulary import END, PAD, VOCABULARY_SIZE, decode, encode, padded

TEXTS = ("move ka", "move kabo", "move tizu", "open door", "open the door", "go")
GRAMMAR = Grammar(TEXTS)
CATALOGUE = np.stack([padded(encode(text), 32) for text in TEXTS])


@pytest.mark.parametrize("action", range(len(TEXTS)))
def test_an_action_is_what_its_text_says(action: int) -> None:
    text = GRAMMAR.render(action)
    assert GRAMMAR.parse(text) == action
    assert GRAMMAR.parse(f"  {text.upper()}\n") == action
    assert GRAMMAR.parse(f"I saw:\nact: go\nso\n ACT:\t{text.replace(' ', '   ')}") == action


@given(st.text())
def test_parse_never_raises(text: str) -> None:
    assert isinstance(GRAMMAR.parse(text), int | Reject)
    assert isinstance(GRAMMAR.parse(f"thought\nact:{text}"), int | Reject)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", EMPTY),
        (" \n\t", EMPTY),
        ("thought\nact: ", EMPTY),
        ("move", UNKNOWN),
        ("move ka ", 0),
        ("so act: move ka", UNKNOWN),
        ("act: move ka\nact: jump", UNKNOWN),
        ("act: move ka now", UNKNOWN),
    ],
)
def test_what_is_and_what_is_not_an_action(text: str, expected: int | Reject) -> None:
    assert GRAMMAR.parse(text) == expected


def test_only_the_first_4096_characters_are_read() -> None:
    action = "\nact: move ka"
    assert GRAMMAR.parse("x" * (4096 - len(action)) + action) == 0
    assert GRAMMAR.parse("x" * (4097 - len(action)) + action) == UNKNOWN
    assert GRAMMAR.parse("move ka" + " " * 4089 + "and more") == 0


@pytest.mark.parametrize("texts", [["go", "go"], ["Go"], ["go  on"], [" go"], [""]])
def test_catalogues_that_cannot_be_told_apart_are_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="Grammar: texts"):
        Grammar(texts)


@pytest.mark.parametrize(
    "text", [*TEXTS, "", "move", "see\nact: go", "act: go\nact: open door", "so act: go", "act:", "act: act: go"]
)
def test_tokens_mean_what_their_text_means(text: str) -> None:
    ids = encode(text)
    for tail in ([], [END], [END, *encode("go")], [PAD, *encode("go")]):
        row = padded([*ids, *tail], 32)[None]
        np.testing.assert_array_equal(read_action_tokens(row, CATALOGUE), GRAMMAR.encode([text]))


@given(st.lists(st.sampled_from([*encode("act:\nmove kabo go open the door"), END]), max_size=32))
def test_tokens_that_are_an_action_are_so_as_text(ids: list[int]) -> None:
    action = int(read_action_tokens(padded(ids, 32)[None], CATALOGUE)[0])
    text = decode(ids[: ids.index(END)] if END in ids else ids)
    if action >= 0:
        assert GRAMMAR.parse(text) == action
    else:
        # A text forgives what tokens do not, white space that the vocabulary spells out; but not the other way round.
        assert action in REJECT_CODES.values()
        assert text not in TEXTS


@given(st.integers(0, 2**32 - 1), st.lists(st.booleans(), min_size=len(TEXTS), max_size=len(TEXTS)).filter(any))
def test_masked_decoding_is_a_distribution_over_admissible_actions(seed: int, admissible: list[bool]) -> None:
    trie, mask = Trie(TEXTS), np.array([admissible])
    weights = np.random.default_rng(seed).random((1, trie.num_nodes, VOCABULARY_SIZE)) + 1e-3
    probabilities = trie.action_probabilities(weights, mask)
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-12)
    assert (probabilities[~mask] == 0.0).all()
    assert (probabilities[mask] > 0.0).all()


def test_masked_decoding_multiplies_along_the_tree() -> None:
    trie = Trie(("move ka", "move ti", "go"))
    weights = np.ones((1, trie.num_nodes, VOCABULARY_SIZE))
    move, ka, go = encode("move")[0], encode("ka")[0], encode("go")[0]
    weights[0, 0, move], weights[0, 0, go] = 3.0, 1.0
    after_move = int(trie.advance(np.array([0]), np.array([move]))[0])
    weights[0, after_move, ka] = 4.0
    everything = np.ones((1, 3), bool)
    np.testing.assert_allclose(trie.action_probabilities(weights, everything), [[0.75 * 0.8, 0.75 * 0.2, 0.25]])
    np.testing.assert_allclose(trie.action_probabilities(weights, np.array([[False, True, True]])), [[0.0, 0.75, 0.25]])


def test_walking_the_tree_reaches_exactly_the_admissible_actions() -> None:
    trie, mask = Trie(TEXTS), np.array([[True, True, False, False, True, False]])
    found, frontier = [], [0]
    while frontier:
        node = frontier.pop()
        action = int(trie.actions(np.array([node]))[0])
        if action >= 0:
            found.append(action)
            continue
        tokens = np.flatnonzero(trie.token_masks(np.array([node]), mask)[0])
        frontier += [int(trie.advance(np.array([node]), np.array([token]))[0]) for token in tokens]
    assert sorted(found) == [0, 1, 4]
    off = trie.advance(np.array([0, -1]), np.array([PAD, encode("go")[0]]))
    assert (off == -1).all()
    assert (trie.actions(off) == -1).all()
