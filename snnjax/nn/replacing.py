"""A layer like another one, but for some attributes: what every `with_...` of a layer returns."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

__all__ = ["replace"]

M = TypeVar("M")


def replace(module: M, **attributes: Any) -> M:
    """A copy of a module with other attributes; as `dataclasses.replace` does for a dataclass.

        quiet = nn.replace(layer, neuron=nn.LIF(threshold=2.0))

    Args:
        module: stays as it is; the copy shares its parameters, and nothing else is touched.
        attributes: the new values.

    Raises:
        AttributeError: the module has no attribute of that name.
    """
    new = copy.copy(module)
    for name, value in attributes.items():
        if not hasattr(module, name):
            raise AttributeError(f"{type(module).__name__} has no attribute {name!r} to replace")
        setattr(new, name, value)
    return new
