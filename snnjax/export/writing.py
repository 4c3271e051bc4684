"""Writing an artifact: a folder that is there as a whole or not at all."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from snnjax.export import functions, manifest
from snnjax.export.errors import ArtifactError
from snnjax.export.functions import Source
from snnjax.export.tensors import pack

__all__ = ["check_free", "check_platforms", "describe", "save"]

_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def save(
    path: str | Path,
    source: Source,
    *,
    streaming: bool = False,
    batch: int | None = None,
    platforms: tuple[str, ...] = ("cpu", "cuda", "tpu"),
    verify: Callable[[Path], None] | None = None,
) -> Path:
    """Writes an artifact.

    Args:
        path: A folder that is not there yet.
        source: The network, its statistics and how it is used.
        streaming: Whether the program is one timestep with explicit state instead of the window.
        batch: Examples that it takes at once; None is any number of them.
        platforms: Where it shall run: cpu, cuda, rocm, tpu.
        verify: Called with the finished folder before it gets its name; what it raises leaves
            nothing behind.

    Returns:
        The path.

    Raises:
        ArtifactError: Something is there already; the network does not admit what is asked for.
    """
    path = Path(path)
    check_free(path)
    check_platforms(platforms)
    files, fields = _contents(source, streaming, batch, platforms)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        for name, data in files.items():
            (beside / name).write_bytes(data)
        (beside / manifest.MANIFEST).write_text(json.dumps(fields, indent=2) + "\n", "utf-8")
        if verify is not None:
            verify(beside)
        beside.rename(path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return path


def check_free(path: Path) -> None:
    """Refuses a folder that is there already.

    Raises:
        ArtifactError: It is.
    """
    if path.exists():
        raise ArtifactError(f"{path} is there already and is not overwritten: choose another --out")


def check_platforms(platforms: tuple[str, ...]) -> None:
    """Refuses names of platforms that JAX does not know.

    Raises:
        ArtifactError: There is one, none at all, or one of them twice.
    """
    unknown = [name for name in platforms if name not in _PLATFORMS]
    if unknown or not platforms or len({*platforms}) < len(platforms):
        raise ArtifactError(
            f"an artifact runs on some of {', '.join(_PLATFORMS)}, got {','.join(platforms)!r}: "
            "give each that is meant once"
        )


def describe(function: Any) -> dict[str, Any]:
    """A function's name and text, for people: the manifest says how inputs were encoded."""
    name = getattr(function, "__name__", None) or type(function).__name__
    try:
        return {"name": name, "source": inspect.getsource(inspect.unwrap(function))}
    except (OSError, TypeError):  # no function, or its file is gone
        return {"name": name, "source": repr(function)}


def _contents(
    source: Source, streaming: bool, batch: int | None, platforms: tuple[str, ...]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files and the manifest."""
    weights, frames = functions.weights_of(source), functions.frame_of(source)
    export = functions.export_streaming if streaming else functions.export_window
    exported = export(source, batch=batch, platforms=platforms)
    files = {
        manifest.PROGRAM: bytes(exported.serialize()),
        manifest.WEIGHTS: pack(weights),
    }
    taken = frames.update(shape=frames.shape[1:]) if streaming else source.example
    fields: dict[str, Any] = {
        "schema": manifest.SCHEMA,
        "kind": "streaming" if streaming else "window",
        "name": source.name,
        "step": source.step,
        "versions": {name: metadata.version(name) for name in ("snnjax", "jax", "jaxlib")},
        "platforms": list(platforms),
        "timesteps": frames.shape[0],
        "batch": "any" if batch is None else batch,
        "input": _spelt(taken),
        "output": _spelt(exported.out_avals[-1], batched=True),
        "class_names": list(source.class_names),
        "encode": source.told.get("encode", describe(source.encode)),
        "readout": source.told.get("readout", describe(source.readout)),
        "clips": source.clips,
    }
    if streaming:
        rest, axes = functions.rest_of(source)
        files[manifest.STATE] = pack(rest)
        fields["state"] = {k: {**_spelt(v), "batch_axis": axes[k]} for k, v in rest.items()}
    return files, {**fields, "files": {k: manifest.digest(data) for k, data in files.items()}}


def _spelt(leaf: Any, *, batched: bool = False) -> dict[str, Any]:
    return {"shape": [int(n) for n in leaf.shape[batched:]], "dtype": str(leaf.dtype)}
