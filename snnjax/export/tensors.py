"""Arrays by name as a safetensors file, and back.

A safetensors file is a JSON table of names, dtypes and shapes, followed by the raw arrays. It is
validated on reading and holds nothing that could run.

Reference: https://github.com/huggingface/safetensors, the format's description.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["ArtifactError", "check_match", "pack", "read_bytes", "unpack"]

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
_SHOWN = 4  # names listed in an error message


class ArtifactError(ValueError):
    """The artifact cannot be written, is damaged, or is of another kind than requested."""


def pack(arrays: dict[str, Any]) -> bytes:
    """Serializes arrays as a safetensors file.

    Args:
        arrays: Arrays by name.

    Returns:
        Content of the file.

    Raises:
        ArtifactError: If the format does not support the dtype of an array.
    """
    import safetensors.numpy

    for name, array in arrays.items():
        if str(array.dtype) not in _DTYPES.values():
            raise ArtifactError(
                f"{name} is of type {array.dtype}, which safetensors cannot hold: leave it out, or "
                "store it in whole bytes"
            )
    # safetensors writes the buffer as it lies: slices and transposes must become C-contiguous.
    host = {k: np.array(v, order="C") for k, v in jax.device_get(arrays).items()}
    return safetensors.numpy.save(host)


def unpack(data: bytes, path: Path) -> dict[str, np.ndarray]:
    """Deserializes a safetensors file.

    Args:
        data: Content of the file.
        path: Path of the file for error messages.

    Returns:
        Arrays by name, sorted by name.

    Raises:
        ArtifactError: If the content is no safetensors file.
    """
    import safetensors

    try:
        # Sorted by name: a file may hold its arrays in any order.
        return {name: _array(view) for name, view in sorted(safetensors.deserialize(data))}
    except Exception as error:
        raise ArtifactError(
            f"{path} is no file of weights, or a damaged one ({type(error).__name__}: {error}): "
            "take the file as export.save_weights or snnjax export wrote it"
        ) from error


def read_bytes(path: Path) -> bytes:
    """Reads a file.

    Args:
        path: Path of the file.

    Returns:
        Its content.

    Raises:
        ArtifactError: If the path does not exist, is not a file, or cannot be read.
    """
    try:
        # A pipe or a device would never end.
        if not path.is_file():
            raise ArtifactError(f"{path} is not there, or is no file: check the path")
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}): check the path") from error


def check_match(saved: dict[str, Any], expected: dict[str, Any], subject: str) -> None:
    """Compares names, shapes and dtypes of arrays.

    Args:
        saved: Arrays of a file, by name.
        expected: Arrays or `jax.ShapeDtypeStruct`s required, by name.
        subject: First words of the error message.

    Raises:
        ArtifactError: If they differ; the message lists the first few.
    """
    there, here = (
        {k: f"{v.dtype}{list(v.shape)}" for k, v in d.items()} for d in (saved, expected)
    )
    differing = [name for name in sorted({**there, **here}) if there.get(name) != here.get(name)]
    if not differing:
        return
    # A few names only: another network may differ in every array.
    shown = "; ".join(
        f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
        for name in differing[:_SHOWN]
    )
    more = f", and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    raise ArtifactError(f"{subject}: {shown}{more}. Take the file of the same network")


def _array(view: dict[str, Any]) -> np.ndarray:
    # jnp.dtype also knows bfloat16 and the float8 types, which NumPy alone does not.
    dtype = jnp.dtype(_DTYPES[view["dtype"]])
    return np.frombuffer(view["data"], dtype).reshape(view["shape"])
