"""Trees come back from JSON and tensors with the same types and the same bits; anything else is refused by name."""

from __future__ import annotations

import enum
import json
import math
import re
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.agents.training.tree import first_difference, pack, unpack


def through_disk(tree: Any) -> Any:
    """Return a tree as a checkpoint gives it back."""
    json_tree, tensors = pack(tree)
    text = json.dumps(json_tree, allow_nan=False)
    return unpack(json.loads(text), safetensors.torch.load(safetensors.torch.save(tensors)))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -1,
        2**63 - 1,
        -(2**63),
        2**63,
        -(2**63) - 1,
        2**128 + 1,
        10**5000,
        1.5,
        1e-320,
        1 / 3,
        "",
        "é\ud800",
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_plain_values_come_back(value: Any) -> None:
    back = through_disk(value)
    assert type(back) is type(value)
    assert back == value


def test_floats_that_json_lacks_come_back() -> None:
    back = through_disk([math.nan, math.inf, -math.inf, -0.0])
    assert math.isnan(back[0])
    assert back[1:3] == [math.inf, -math.inf]
    assert math.copysign(1.0, back[3]) == -1.0


def test_containers_keep_type_keys_and_order() -> None:
    tree = {"z": (1, [2, (3,)], ()), "a": {2: "two", "2": "text", -1: None}, "!": {"!": "kind"}, "empty": [{}, [], ()]}
    back = through_disk(tree)
    assert back == tree
    assert list(back) == list(tree)
    assert type(back["z"]) is tuple
    assert list(back["a"]) == [2, "2", -1]
    ordered = OrderedDict(b=1, a=OrderedDict())
    assert type(through_disk(ordered)) is OrderedDict
    assert list(through_disk(ordered)) == ["b", "a"]


ARRAYS = [
    np.array(3.0),
    np.zeros((2, 0, 3), np.float32),
    np.array([True, False]),
    np.array([2**64 - 1, 0], np.uint64),
    np.arange(6, dtype=np.uint16).reshape(2, 3),
    np.array([1, -2], np.int8),
    np.array([0.1, math.nan, -0.0], np.float16),
    np.array([1 + 2j], np.complex64),
    np.array([1 + 2j], np.complex128),
    np.arange(3, dtype=">f4"),
    np.array(["a", "bcé"]),
    np.array([], "U3"),
    np.array([b"x", b"yz"]),
    np.array(["2020-01-01", "NaT"], "M8[s]"),
    np.arange(6.0).reshape(2, 3).T,
    np.arange(10)[::3],
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str}{array.shape}")
def test_arrays_come_back(array: np.ndarray) -> None:
    back = through_disk({"deep": [array]})["deep"][0]
    assert type(back) is np.ndarray
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable


@pytest.mark.parametrize("array", [a for a in ARRAYS if a.size], ids=lambda array: array.dtype.str)
def test_numpy_scalars_come_back(array: np.ndarray) -> None:
    scalar = array.flat[0]
    back = through_disk(scalar)
    assert type(back) is type(scalar)
    assert back.dtype == scalar.dtype
    assert back.tobytes() == scalar.tobytes()


TENSORS = [
    torch.tensor(1.0),
    torch.empty(0, 3),
    torch.tensor([1.5, math.nan], dtype=torch.bfloat16),
    torch.tensor([1.5], dtype=torch.float16),
    torch.tensor([True]),
    torch.tensor(2**63, dtype=torch.uint64),
    torch.tensor([1 + 2j], dtype=torch.complex128).conj(),
    torch.tensor([1 + 2j], dtype=torch.complex64),
    torch.ones(2, 2).to(torch.float8_e4m3fn),
    torch.arange(6).reshape(2, 3).T,
    torch.zeros(4).expand(3, 4),
]


@pytest.mark.parametrize("tensor", TENSORS, ids=lambda tensor: f"{tensor.dtype}{tuple(tensor.shape)}")
def test_tensors_come_back(tensor: torch.Tensor) -> None:
    back = through_disk((tensor,))[0]
    assert type(back) is torch.Tensor
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    plain, plain_back = (t.resolve_conj().contiguous().reshape(-1).view(torch.uint8) for t in (tensor, back))
    assert torch.equal(plain, plain_back)


def test_parameters_come_back_as_plain_tensors_and_shared_memory_apart() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    back = through_disk({"a": weight, "b": weight, "view": weight[:1]})
    assert type(back["a"]) is torch.Tensor
    assert not back["a"].requires_grad
    back["a"][0] = 5.0
    assert back["b"].tolist() == [1.0, 1.0]
    assert back["view"].tolist() == [1.0]


def test_pack_takes_copies() -> None:
    tensor, array = torch.zeros(2), np.zeros(2)
    json_tree, tensors = pack([tensor, array])
    tensor += 1
    array += 1
    assert [part.tolist() for part in unpack(json_tree, tensors)] == [[0.0, 0.0], [0.0, 0.0]]


def test_names_of_tensors_never_collide() -> None:
    tree = {"a": {1: np.ones(1), "1": np.full(1, 2.0)}, "a/1": np.full(1, 3.0), "__metadata__": np.full(1, 4.0)}
    assert first_difference(through_disk(tree), tree) is None


@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_numpy_generators_go_on(bits: type[np.random.BitGenerator]) -> None:
    generator = np.random.Generator(bits(7))
    generator.standard_normal(5)
    generator.integers(3, dtype=np.uint32)
    other = np.random.Generator(bits(0))
    other.bit_generator.state = through_disk(generator.bit_generator.state)
    assert (
        other.integers(2**32, size=9, dtype=np.uint32).tolist()
        == generator.integers(2**32, size=9, dtype=np.uint32).tolist()
    )


def test_torch_generator_and_adam_go_on_bit_for_bit() -> None:
    def steps(model: torch.nn.Module, adam: torch.optim.Adam, generator: torch.Generator) -> None:
        for _ in range(5):
            adam.zero_grad()
            model(torch.randn(8, 3, generator=generator)).square().mean().backward()
            adam.step()

    def fresh(seed: int) -> tuple[torch.nn.Module, torch.optim.Adam, torch.Generator]:
        generator = torch.Generator().manual_seed(seed)
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.Adam(model.parameters(), lr=0.1, amsgrad=True), generator

    first = fresh(1)
    steps(*first)
    saved = through_disk({"model": first[0].state_dict(), "adam": first[1].state_dict(), "noise": first[2].get_state()})
    steps(*first)
    second = fresh(2)
    second[0].load_state_dict(saved["model"])
    second[1].load_state_dict(saved["adam"])
    second[2].set_state(saved["noise"])
    steps(*second)
    ends = [{"model": m.state_dict(), "adam": a.state_dict(), "noise": g.get_state()} for m, a, g in (first, second)]
    assert first_difference(*ends) is None


class Colour(enum.IntEnum):
    RED = 1


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "leaf",
    [
        object(),
        {1, 2},
        b"bytes",
        1j,
        Colour.RED,
        Point(1, 2),
        defaultdict(int),
        np.array([object()]),
        np.zeros(1, [("a", "i4")]),
        np.ma.masked_array([1.0]),
        torch.eye(2).to_sparse(),
        torch.empty(2, device="meta"),
        lambda: None,
        np.float32,
    ],
    ids=lambda leaf: type(leaf).__name__,
)
def test_other_leaves_are_refused_by_their_place(leaf: Any) -> None:
    with pytest.raises(TypeError, match=r"pack: state\['critic'\]\[1\]\[3\] is .*; expected"):
        pack({"critic": [0, {3: leaf}]})


@pytest.mark.parametrize("key", [1.0, None, (1,), True, np.int64(1)])
def test_other_keys_are_refused(key: Any) -> None:
    with pytest.raises(TypeError, match=r"pack: state\['a'\] has the key .*; expected str or int"):
        pack({"a": {key: 1}})


@pytest.mark.parametrize(
    "packed",
    [
        {"!": "object"},
        {"!": ["tuple"]},
        {"!": "tuple"},
        {"!": "tensor", "tensor": "absent"},
        {"!": "tensor", "tensor": "x", "dtype": "nn", "shape": [1]},
        {"!": "tensor", "tensor": "x", "dtype": "float64", "shape": [7]},
        {"!": "ndarray", "tensor": "x", "dtype": "O", "shape": [1]},
        {"!": "ndarray", "tensor": "x", "dtype": "<f4", "shape": [2]},
        {"!": "ndarray", "tensor": "x", "dtype": "no type", "shape": [1]},
        {"!": "scalar", "dtype": "<f8", "hex": "00"},
        {"!": "int", "hex": "zz"},
        {"!": "dict", "items": [[[], 1]]},
    ],
    ids=str,
)
def test_json_that_was_not_packed_is_an_error(packed: Any) -> None:
    with pytest.raises(ValueError, match=r"^unpack: "):
        unpack([packed], {"x": torch.zeros(1)})


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.builds(np.float32, st.floats(width=32)),
    st.lists(st.integers(-9, 9), max_size=3).map(lambda values: np.array(values, np.int32)),
    st.lists(st.floats(width=32), max_size=3).map(torch.tensor),
)
TREES = st.recursive(
    LEAVES,
    lambda tree: st.one_of(
        st.lists(tree, max_size=3),
        st.lists(tree, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers(), st.just("!")), tree, max_size=3),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_any_tree_comes_back(tree: Any) -> None:
    assert first_difference(tree, through_disk(tree)) is None


@pytest.mark.parametrize(
    ("left", "right", "place"),
    [
        ({"a": 1}, {"a": 2}, r"state\['a'\]"),
        ({"a": 1}, {"a": 1.0}, r"state\['a'\]"),
        ({"a": 1}, {"a": True}, r"state\['a'\]"),
        ([0.0], [-0.0], r"state\[0\]"),
        ([1], (1,), "state"),
        ([1], [1, 2], "length 1 against 2"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, "keys"),
        (np.zeros(2, np.float32), np.zeros(2), "state"),
        (np.zeros(2), torch.zeros(2, dtype=torch.float64), "state"),
        (np.zeros((1, 2)), np.zeros((2, 1)), "state"),
        (
            torch.tensor([1.0, 2.0, 3.0]),
            torch.tensor([1.0, 5.0, 4.0]),
            "2 of 3 values differ, the first at 1: 2.0 against 5.0",
        ),
        (np.float32(1), np.float64(1), "state"),
    ],
    ids=lambda part: str(part)[:20],
)
def test_first_difference_says_where(left: Any, right: Any, place: str) -> None:
    difference = first_difference(left, right)
    assert difference is not None
    assert re.search(place, difference)


def test_equal_trees_have_no_difference_even_with_nan() -> None:
    tree = {"a": [np.array([math.nan]), torch.tensor(math.nan), math.nan]}
    assert first_difference(tree, through_disk(tree)) is None
