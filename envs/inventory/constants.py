"""Constants of a world in the library, precision and place of the arrays they meet."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from palaestra.envs.arrays import namespace_of
from palaestra.protocols import Array


class Constant:
    """An array that does not change, converted once for each library, precision and device.

    Args:
        values: Numbers or whole numbers of any shape.
    """

    def __init__(self, values: ArrayLike) -> None:
        self.values = np.asarray(values)
        self.values.setflags(write=False)
        self._converted: dict[Any, Array] = {}

    def like(self, array: Array) -> Array:
        """Return the values beside another array: of its library and device; floats in its precision, too.

        A single number is returned as such, for it fits all of them.
        """
        if self.values.ndim == 0:
            return self.values.item()
        if isinstance(array, np.ndarray) and (array.dtype == self.values.dtype or self.values.dtype.kind != "f"):
            return self.values
        place = (type(array), array.dtype, str(array.device) if hasattr(array, "device") else "")
        found = self._converted.get(place)
        if found is None:
            xp = namespace_of(array)
            options = {} if isinstance(array, np.ndarray) else {"device": array.device}
            # A copy, for torch warns of memory that must not be written to.
            found = xp.asarray(self.values.copy(), **options)
            if self.values.dtype.kind == "f":
                found = xp.astype(found, array.dtype)
            self._converted[place] = found
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        # What was converted is a function of the values.
        return Constant, (self.values,)
