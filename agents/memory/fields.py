"""Flat names for nested fields: `{"observation": {"image": x}}` is stored as `{"observation/image": x}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def flatten_fields(tree: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the leaves of one level of nested dicts under `name/key`; arrays become tensors."""
    flat: dict[str, Tensor] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{key}": torch.as_tensor(leaf) for key, leaf in value.items()}
        else:
            flat[name] = torch.as_tensor(value)
    return flat


def nest_fields(flat: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the tree that `flatten_fields` made flat."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        name, _, key = path.partition("/")
        if key:
            tree.setdefault(name, {})[key] = value
        else:
            tree[name] = value
    return tree
