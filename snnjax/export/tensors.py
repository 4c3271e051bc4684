"""Arrays by name as the bytes of a safetensors file, and back.

The format is a table of names, types and shapes in JSON, then the arrays as they lie in memory. It
is checked when it is read, and holds nothing that could run.

Reference: https://github.com/huggingface/safetensors, the format's description.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.export.errors import ArtifactError

__all__ = ["pack", "read_bytes", "refuse_difference", "unpack"]

_DTYPES = {
    "BOOL": "bool",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
}
_SHOWN = 4  # names in a message


def pack(arrays: dict[str, Any]) -> bytes:
    """The bytes of a safetensors file.

    Args:
        arrays: By name.

    Raises:
        ArtifactError: One is of a type that the format does not know.
    """
    import safetensors.numpy

    for name, array in arrays.items():
        if str(array.dtype) not in _DTYPES.values():
            raise ArtifactError(
                f"{name} is of type {array.dtype}, which safetensors cannot hold: leave it out, or "
                "store it in whole bytes"
            )
    # Slices and transposes have other strides; what is written is in C order.
    host = {k: np.array(v, order="C") for k, v in jax.device_get(arrays).items()}
    return safetensors.numpy.save(host)


def unpack(data: bytes, path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, in the order of their names.

    Args:
        data: Its bytes.
        path: Where they are from, for messages.

    Raises:
        ArtifactError: They are no such file.
    """
    import safetensors

    try:
        return {name: _array(view) for name, view in sorted(safetensors.deserialize(data))}
    except Exception as error:
        raise ArtifactError(
            f"{path} is no file of weights, or a damaged one ({type(error).__name__}: {error}): "
            "take the file as export.save_weights or snnjax export wrote it"
        ) from error


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        ArtifactError: It is not there, or is no file.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ArtifactError(f"{path} is not there, or is no file: check the path") from error


def refuse_difference(there: dict[str, Any], here: dict[str, Any], what: str) -> None:
    """Compares names, shapes and types.

    Args:
        there: Arrays of a file.
        here: Arrays, or their shapes, that are asked for.
        what: How the message begins.

    Raises:
        ArtifactError: They differ; it names the first few.
    """
    saved, asked = ({k: f"{v.dtype}{list(v.shape)}" for k, v in d.items()} for d in (there, here))
    differing = [name for name in sorted({**saved, **asked}) if saved.get(name) != asked.get(name)]
    if not differing:
        return
    shown = "; ".join(
        f"{name} is {saved.get(name, 'absent')} there and {asked.get(name, 'absent')} here"
        for name in differing[:_SHOWN]
    )
    more = f", and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    raise ArtifactError(f"{what}: {shown}{more}. Take the file of the same network")


def _array(view: dict[str, Any]) -> np.ndarray:
    # NumPy alone has no bfloat16 and no float8; the types that JAX brings along are NumPy's too.
    dtype = jnp.dtype(_DTYPES[view["dtype"]])
    return np.frombuffer(view["data"], dtype).reshape(view["shape"])
