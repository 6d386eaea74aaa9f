"""Configurations: frozen dataclasses whose keys, types and ranges are checked wherever they are made."""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class AgentConfig:
    """What every agent has. Each field's help is the string below it."""

    gamma: float = 0.99
    """Discount per step, in [0, 1]."""
    learning_rate: float = 3e-4
    """Step size of Adam, above 0."""
    num_envs: int = 1
    """Parallel copies of the env, where the env is given by its id."""
    frame_stack: int = 1
    """Latest observations seen together, at least 1."""
    normalize_observation: bool = False
    """Standardise float vectors by running statistics, frozen at evaluation."""
    encoder: str = "auto"
    """What turns observations into features: auto, a registered name, or package.module:Class."""

    def __post_init__(self) -> None:
        check_types(self)
        self.require("gamma", 0.0 <= self.gamma <= 1.0, "a number in [0, 1]")
        self.require("learning_rate", self.learning_rate > 0.0, "a number above 0")
        self.require("num_envs", self.num_envs >= 1, "an integer of at least 1")
        self.require("frame_stack", self.frame_stack >= 1, "an integer of at least 1")

    def require(self, name: str, holds: bool, expected: str) -> None:
        """Raise ValueError naming a field, its value and what was expected, unless a condition holds."""
        if not holds:
            raise ValueError(f"{type(self).__name__}: {name}={getattr(self, name)!r}; expected {expected}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


Config = TypeVar("Config", bound=AgentConfig)


def make_config(config_class: type[Config], values: Mapping[str, Any]) -> Config:
    """Return a configuration with some fields set.

    Raises:
        TypeError: If a key is unknown (the nearest field is named) or a value has the wrong type.
        ValueError: If a value is out of range.
    """
    known = [field.name for field in fields(config_class)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(sorted(known))}"
            raise TypeError(f"{config_class.__name__}: unknown field {key!r}; {hint}")
    return config_class(**values)


def check_types(config: Any) -> None:
    """Check every field of a frozen dataclass against its annotation; ints become floats and lists tuples where asked.

    Raises:
        TypeError: Naming the field, the value, its type and the expected type.
    """
    hints = get_type_hints(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        converted = _convert(value, hints[field.name])
        if converted is _MISFIT:
            hint = hints[field.name]
            expected = hint.__name__ if get_origin(hint) is None else str(hint).replace("typing.", "")
            raise TypeError(
                f"{type(config).__name__}: {field.name}={value!r} is of type {type(value).__name__}; "
                f"expected {expected}"
            )
        object.__setattr__(config, field.name, converted)


_MISFIT = object()


def _convert(value: Any, hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        converted = [_convert(value, option) for option in arguments]
        return next((item for item in converted if item is not _MISFIT), _MISFIT)
    if origin is Literal:
        return value if value in arguments else _MISFIT
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return _MISFIT
        items = tuple(_convert(item, arguments[0]) for item in value)
        return _MISFIT if any(item is _MISFIT for item in items) else items
    if hint is type(None):
        return None if value is None else _MISFIT
    if hint is float:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else _MISFIT
    if hint is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else _MISFIT
    return value if isinstance(value, hint) else _MISFIT


def field_help(config_class: type) -> dict[str, str]:
    """Return the help of every field: the string literal below it, in the class or the nearest base that has it."""
    found: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        if base is object:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, following in zip(body.body, body.body[1:], strict=False):
            match statement, following:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = text
    return found
