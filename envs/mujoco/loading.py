"""What MuJoCo says while it compiles a model, said as Python says such things."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mujoco

_TOLD: dict[Any, int] = {}
"""Where Python's warnings note what was told already."""


@contextmanager
def python_warnings() -> Iterator[None]:
    """Turn what MuJoCo warns of inside into Python's warnings, which are told once and can be filtered.

    By itself MuJoCo prints every warning at every load and appends it to a file in the current directory; the models
    that Gymnasium ships cause one each time an env is made. Deprecations become `DeprecationWarning`, all else
    `UserWarning`. Warnings of the simulation, outside, stay MuJoCo's own.
    """
    before = mujoco.get_mju_user_warning()
    heard: list[str] = []
    mujoco.set_mju_user_warning(heard.append)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
        # Not from within the handler: a filter may make an exception of it, which MuJoCo's C code cannot pass on.
        for message in heard:
            category = DeprecationWarning if "deprecated" in message else UserWarning
            # In MuJoCo's name: whoever turns the suite's own deprecations into errors does not mean these.
            warnings.warn_explicit(f"MuJoCo: {message}", category, mujoco.__file__, 0, "mujoco", _TOLD)
