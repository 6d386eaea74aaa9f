"""One closed vocabulary for every text world, exact in both directions: `decode(encode(text)) == text` for any string.

Ids are append-only: checkpoints store token ids, so a released token never moves. New lexicons are appended to
`LEXICONS`; `VOCABULARY_HASH` names the whole list and `prefix_hash(size)` its released beginning.

Spaces are implied, not stored: between two neighbours the decoder writes one space where both sides ask for one (words,
digits and syllables do; punctuation says so side by side), and none between two digits or two syllables, so that
numbers and invented names are spelled without gaps. Whatever departs from that rule is encoded as UTF-8 byte tokens,
which never ask for a space.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import numpy as np

SPECIALS = (
    *"<pad> <bos> <end> <obs> <think> </think> <act> <tool> <result> <user> <policy> <hint>".split(),
    *"<task> <reflect> <judge> <sep>".split(),
)
PAD, BOS, END, OBS, THINK, END_THINK, ACT, TOOL, RESULT, USER, POLICY, HINT, TASK, REFLECT, JUDGE, SEP = range(16)

_CLINGS_LEFT = ",.:;!?)]}%"
_CLINGS_RIGHT = "([{#$@"
_STANDS_ALONE = "|=+*<>&~^"
_JOINS = "-_'\"`\\/\n"
PUNCTUATION = tuple(_CLINGS_LEFT + _CLINGS_RIGHT + _STANDS_ALONE + _JOINS)

# A syllable ends at its vowel, so an invented name splits in one way only; English words are left to the lexicons.
SYLLABLES = tuple(
    consonant + vowel
    for consonant in "bdfghjklmnprstvz"
    for vowel in "aeiou"
    if consonant + vowel not in "be do go ha he hi ho la lo ma me no pa re so to".split()
)

LEXICONS: tuple[tuple[str, ...], ...] = (
    # Layout of transcripts and the rooms of TextCorridor.
    tuple("task policy turn last see have can act invalid of no such exit here empty unknown action".split())
    + tuple("reach room moved nothing move".split()),
    # Missions of MiniGrid and BabyAI.
    tuple("a after and at avoid ball behind blue box door end fetch find from front get go goal green grey".split())
    + tuple("hallway in key lava left matching must near next object on open opening pick purple put red right".split())
    + tuple("rooms square the then to traverse unlock up use yellow you your".split()),
)
WORDS = tuple(word for lexicon in LEXICONS for word in lexicon)

TOKENS = (
    *SPECIALS,
    *"0123456789",
    *PUNCTUATION,
    *(f"<0x{byte:02x}>" for byte in range(256)),
    *SYLLABLES,
    *WORDS,
)
VOCABULARY_SIZE = len(TOKENS)
"""Number of tokens; ids are 0, ..., VOCABULARY_SIZE - 1 and 0 is the padding."""

_FIRST_DIGIT = len(SPECIALS)
_FIRST_BYTE = _FIRST_DIGIT + 10 + len(PUNCTUATION)
_FIRST_SYLLABLE = _FIRST_BYTE + 256
_FIRST_WORD = _FIRST_SYLLABLE + len(SYLLABLES)
_SPACE = _FIRST_BYTE + 0x20

_ID = {token: _FIRST_DIGIT + i for i, token in enumerate(TOKENS[_FIRST_DIGIT:_FIRST_BYTE])}
_SYLLABLE_ID = {token: _FIRST_SYLLABLE + i for i, token in enumerate(SYLLABLES)}
_ID |= {token: _FIRST_WORD + i for i, token in enumerate(WORDS)}
_PIECE = re.compile(r"[a-z]+|[^a-z]", re.DOTALL)
_SYLLABLE = re.compile(r"[^aeiou]*[aeiou]?")


def _spacing(token_id: int) -> tuple[bool, bool, str]:
    """Whether a token asks for a space on its left and on its right, and the class within which it joins."""
    token = TOKENS[token_id]
    if token_id < _FIRST_DIGIT:
        return False, False, ""
    if token in PUNCTUATION:
        return token in _CLINGS_RIGHT + _STANDS_ALONE, token in _CLINGS_LEFT + _STANDS_ALONE, ""
    if _FIRST_BYTE <= token_id < _FIRST_SYLLABLE:
        return False, False, ""
    return True, True, "digit" if token.isdigit() else "syllable" if token_id < _FIRST_WORD else ""


_SPACING = tuple(_spacing(token_id) for token_id in range(VOCABULARY_SIZE))
_BYTES = tuple(
    bytes([token_id - _FIRST_BYTE]) if _FIRST_BYTE <= token_id < _FIRST_SYLLABLE else token.encode()
    for token_id, token in enumerate(TOKENS)
)


def _spaced(left: int, right: int) -> bool:
    joined = _SPACING[left][2]
    return _SPACING[left][1] and _SPACING[right][0] and not (joined and joined == _SPACING[right][2])


def prefix_hash(size: int) -> str:
    """Return the hash (32 hexadecimal digits) of the first `size` tokens; equal hashes mean equal ids."""
    return hashlib.blake2b("\0".join(TOKENS[:size]).encode(), digest_size=16).hexdigest()


VOCABULARY_HASH = prefix_hash(VOCABULARY_SIZE)
"""Hash of the whole vocabulary."""


def encode(text: str) -> list[int]:
    """Return the token ids of a text, in time linear in its length; special tokens are never produced.

    Args:
        text: Any string; what the vocabulary lacks becomes its UTF-8 bytes.
    """
    ids: list[int] = []
    pending_space = False
    for piece in _PIECE.findall(text):
        if piece == " ":
            if pending_space:
                ids.append(_SPACE)
            pending_space = True
            continue
        tokens = _known(piece)
        implied = tokens is not None and bool(ids) and _spaced(ids[-1], tokens[0])
        if tokens is None or (implied and not pending_space):
            tokens = [_FIRST_BYTE + byte for byte in piece.encode("utf-8", "surrogatepass")]
        if pending_space and not implied:
            ids.append(_SPACE)
        ids += tokens
        pending_space = False
    if pending_space:
        ids.append(_SPACE)
    return ids


def _known(piece: str) -> list[int] | None:
    token_id = _ID.get(piece)
    if token_id is not None:
        return [token_id]
    syllables = [_SYLLABLE_ID.get(part, -1) for part in _SYLLABLE.findall(piece) if part] if piece.isalpha() else [-1]
    return None if -1 in syllables else syllables


def decode(ids: Iterable[int]) -> str:
    """Return the text of token ids; special tokens (padding among them) are left out.

    Args:
        ids: Token ids, each in {0, ..., VOCABULARY_SIZE - 1}; bytes that are no UTF-8 become U+FFFD.

    Raises:
        ValueError: If an id is outside the vocabulary.
    """
    parts: list[bytes] = []
    previous = PAD
    for token_id in map(int, ids):
        if not 0 <= token_id < VOCABULARY_SIZE:
            raise ValueError(f"decode: ids contains {token_id}; expected ids from 0 to {VOCABULARY_SIZE - 1}")
        if token_id < _FIRST_DIGIT:
            continue
        if _spaced(previous, token_id):
            parts.append(b" ")
        parts.append(_BYTES[token_id])
        previous = token_id
    joined = b"".join(parts)
    try:
        return joined.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return joined.decode("utf-8", "replace")


def padded(ids: list[int], length: int) -> np.ndarray:
    """Return token ids `[length]` int32, filled up with padding on the right or cut to `length`."""
    row = np.zeros(length, dtype=np.int32)
    kept = ids[:length]
    row[: len(kept)] = kept
    return row
