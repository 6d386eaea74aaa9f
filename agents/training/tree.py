"""Trees of plain values and arrays, split into JSON and tensors and put together again.

`pack` and `unpack` are what makes a checkpoint loadable without running code: everything that is not a tensor becomes
JSON, and every array a named tensor. JSON's own types stand for themselves; what JSON cannot say (tuples, int keys,
not-a-number, big integers, arrays) is an object whose key `"!"` names its kind.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

Tree = Any
"""Nested dict, list and tuple of None, bool, int, float, str, NumPy arrays and scalars, and torch tensors."""

_KIND = "!"
_INT64 = 2**63
_NATIVE = frozenset(
    (
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    )
)
"""Types that every version of safetensors holds; all others are kept as bytes beside the name of their type."""
_NATIVE_NUMPY = frozenset(np.dtype(name) for name in "? u1 i1 i2 i4 i8 f2 f4 f8".split())
_EXPECTED = (
    "dict (str or int keys), list, tuple, None, bool, int, float, str, a NumPy array or scalar without objects or "
    "fields, or a dense torch tensor"
)


def pack(tree: Tree, root: str = "state") -> tuple[Any, dict[str, torch.Tensor]]:
    """Return a tree as `(json_tree, tensors)`, which `unpack` turns back into an equal tree of the same types.

    The tensors are copies, contiguous and on the CPU, named by their path. Parameters come back as plain tensors that
    require no gradient; two places that share memory come back apart.

    Args:
        tree: Values as `Tree` describes them.
        root: What the tree is called in tensor names and errors.

    Raises:
        TypeError: If a leaf or a key is of another type; the message names its place in the tree.
    """
    tensors: dict[str, torch.Tensor] = {}
    return _pack(tree, (root,), tensors), tensors


def unpack(json_tree: Any, tensors: Mapping[str, torch.Tensor]) -> Tree:
    """Return the tree that was packed; arrays may share memory with `tensors`.

    Raises:
        ValueError: If the JSON names a kind, type or tensor that is unknown, or the shapes disagree.
    """
    if isinstance(json_tree, list):
        return [unpack(item, tensors) for item in json_tree]
    if not isinstance(json_tree, dict):
        return json_tree
    if _KIND not in json_tree:
        return {key: unpack(value, tensors) for key, value in json_tree.items()}
    kind = json_tree[_KIND]
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise ValueError(f"unpack: kind={kind!r} is unknown; expected one of {sorted(_READERS)}")
    try:
        return reader(json_tree, tensors)
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        if str(error).startswith("unpack:"):
            raise
        raise ValueError(f"unpack: a {kind} cannot be read: {type(error).__name__}: {error}") from error


def first_difference(left: Tree, right: Tree) -> str | None:
    """Return where two trees first differ in type, order or any bit, in words, or None where they are equal."""
    (left_json, left_tensors), (right_json, right_tensors) = pack(left), pack(right)
    return _difference(left_json, right_json, left_tensors, right_tensors, "state")


def _pack(value: Tree, path: tuple[str | int, ...], tensors: dict[str, torch.Tensor]) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        # Other readers of JSON hold 64 bits, and Python itself limits the decimal digits it converts.
        return value if -_INT64 <= value < _INT64 else {_KIND: "int", "hex": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {_KIND: "float", "value": repr(value)}
    if kind is list:
        return [_pack(item, (*path, i), tensors) for i, item in enumerate(value)]
    if kind is tuple:
        return {_KIND: "tuple", "items": [_pack(item, (*path, i), tensors) for i, item in enumerate(value)]}
    if kind is dict or kind is OrderedDict:
        return _pack_dict(value, path, tensors)
    if kind is np.ndarray:
        return _pack_array(value, path, tensors)
    if isinstance(value, np.generic) and not _has_objects(value.dtype):
        return {_KIND: "scalar", "dtype": value.dtype.str, "hex": value.tobytes().hex()}
    if kind is torch.Tensor or kind is torch.nn.Parameter:
        return _pack_tensor(value, path, tensors)
    raise TypeError(f"pack: {_place(path)} is a {kind.__module__}.{kind.__qualname__}; expected {_EXPECTED}")


def _pack_dict(value: Mapping[Any, Tree], path: tuple[str | int, ...], tensors: dict[str, torch.Tensor]) -> Any:
    for key in value:
        if type(key) is not str and type(key) is not int:
            raise TypeError(
                f"pack: {_place(path)} has the key {key!r} of type {type(key).__name__}; expected str or int"
            )
    packed = [(key, _pack(item, (*path, key), tensors)) for key, item in value.items()]
    if type(value) is dict and all(type(key) is str for key in value) and _KIND not in value:
        return dict(packed)
    kind = "dict" if type(value) is dict else "ordered_dict"
    return {_KIND: kind, "items": [[_pack(key, path, tensors), item] for key, item in packed]}


def _pack_array(array: np.ndarray, path: tuple[str | int, ...], tensors: dict[str, torch.Tensor]) -> Any:
    if _has_objects(array.dtype):
        raise TypeError(f"pack: {_place(path)} is an array of dtype={array.dtype}; expected {_EXPECTED}")
    packed = {_KIND: "ndarray", "dtype": array.dtype.str, "shape": list(array.shape)}
    if array.dtype in _NATIVE_NUMPY and array.dtype.isnative:
        tensor = torch.from_numpy(np.array(array, order="C"))
    else:
        tensor = torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy())
    return {**packed, "tensor": _add(tensor, path, tensors)}


def _pack_tensor(value: torch.Tensor, path: tuple[str | int, ...], tensors: dict[str, torch.Tensor]) -> Any:
    if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
        raise TypeError(
            f"pack: {_place(path)} is a tensor of layout={value.layout}, dtype={value.dtype} on device={value.device}; "
            f"expected {_EXPECTED}"
        )
    tensor = value.detach().to("cpu", copy=True).resolve_conj().resolve_neg().contiguous()
    packed: dict[str, Any] = {_KIND: "tensor"}
    if tensor.dtype not in _NATIVE:
        packed |= {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
        tensor = _as_bytes(tensor)
    return {**packed, "tensor": _add(tensor, path, tensors)}


def _add(tensor: torch.Tensor, path: tuple[str | int, ...], tensors: dict[str, torch.Tensor]) -> str:
    name = "/".join(map(str, path))
    while name in tensors:
        name += "~"
    tensors[name] = tensor
    return name


def _as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    # Empty tensors may have strides that no view as bytes allows.
    return tensor.reshape(-1).view(torch.uint8) if tensor.numel() else torch.empty(0, dtype=torch.uint8)


def _has_objects(dtype: np.dtype[Any]) -> bool:
    return dtype.hasobject or dtype.names is not None or dtype.kind == "V"


def _place(path: tuple[str | int, ...]) -> str:
    return f"{path[0]}" + "".join(f"[{part!r}]" for part in path[1:])


def _read_items(packed: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> list[tuple[Any, Tree]]:
    return [(unpack(key, tensors), unpack(item, tensors)) for key, item in packed["items"]]


def _read_array(packed: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
    dtype, shape = _numpy_dtype(packed["dtype"]), tuple(packed["shape"])
    stored = tensors[packed["tensor"]].numpy()
    if stored.dtype == dtype:
        return stored.reshape(shape)
    return np.ndarray(shape, dtype, stored.tobytes()).copy()


def _read_tensor(packed: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    tensor = tensors[packed["tensor"]]
    if "dtype" not in packed:
        return tensor
    dtype = getattr(torch, packed["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"unpack: dtype={packed['dtype']!r}; expected the name of a torch type")
    return tensor.view(dtype).reshape(packed["shape"])


def _read_scalar(packed: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> Any:
    scalar: Any = np.ndarray((), _numpy_dtype(packed["dtype"]), bytes.fromhex(packed["hex"]))[()]
    return scalar


def _numpy_dtype(name: str) -> np.dtype[Any]:
    dtype = np.dtype(name)
    if _has_objects(dtype):
        raise ValueError(f"unpack: dtype={name!r}; expected a NumPy type without objects or fields")
    return dtype


_READERS: dict[str, Callable[[dict[str, Any], Mapping[str, torch.Tensor]], Tree]] = {
    "int": lambda packed, tensors: int(packed["hex"], 16),
    "float": lambda packed, tensors: float(packed["value"]),
    "tuple": lambda packed, tensors: tuple(unpack(item, tensors) for item in packed["items"]),
    "dict": lambda packed, tensors: dict(_read_items(packed, tensors)),
    "ordered_dict": lambda packed, tensors: OrderedDict(_read_items(packed, tensors)),
    "ndarray": _read_array,
    "tensor": _read_tensor,
    "scalar": _read_scalar,
}


def _difference(
    left: Any, right: Any, left_tensors: dict[str, torch.Tensor], right_tensors: dict[str, torch.Tensor], place: str
) -> str | None:
    if type(left) is not type(right):
        return f"{place}: {left!r} against {right!r}"
    if isinstance(left, dict):
        if list(left) != list(right):
            return f"{place}: keys {list(left)} against {list(right)}"
        if left.get(_KIND) in ("ndarray", "tensor"):
            return _tensor_difference(left, right, left_tensors, right_tensors, place)
        pairs = [(f"[{key!r}]", left[key], right[key]) for key in left]
    elif isinstance(left, list):
        if len(left) != len(right):
            return f"{place}: length {len(left)} against {len(right)}"
        pairs = [(f"[{i}]", a, b) for i, (a, b) in enumerate(zip(left, right, strict=True))]
    else:
        # The text of a float tells -0.0 from 0.0, which compare equal.
        return None if repr(left) == repr(right) else f"{place}: {left!r} against {right!r}"
    found = (_difference(a, b, left_tensors, right_tensors, place + part) for part, a, b in pairs)
    return next((difference for difference in found if difference is not None), None)


def _tensor_difference(
    left: dict[str, Any],
    right: dict[str, Any],
    left_tensors: dict[str, torch.Tensor],
    right_tensors: dict[str, torch.Tensor],
    place: str,
) -> str | None:
    a, b = left_tensors[left["tensor"]], right_tensors[right["tensor"]]
    described = [{**packed, "tensor": (t.dtype, tuple(t.shape))} for packed, t in ((left, a), (right, b))]
    if described[0] != described[1]:
        return f"{place}: {described[0]} against {described[1]}"
    unequal = (_as_bytes(a) != _as_bytes(b)).reshape(a.numel(), a.element_size())
    unequal_values = unequal.any(1).nonzero()
    if not len(unequal_values):
        return None
    at = int(unequal_values[0])
    return (
        f"{place}: {len(unequal_values)} of {a.numel()} values differ, the first at {at}: "
        f"{a.reshape(-1)[at].item()!r} against {b.reshape(-1)[at].item()!r}"
    )
