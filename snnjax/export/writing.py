"""Writing of artifacts, atomically: a folder exists complete or not at all."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from snnjax.export import _manifest as manifest
from snnjax.export import functions
from snnjax.export.artifact import check_signature
from snnjax.export.functions import Source
from snnjax.export.tensors import ArtifactError, pack

__all__ = ["describe", "save"]

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
        path: Path of a folder that does not exist yet.
        source: The network, its statistics, encoding and readout.
        streaming: Export one timestep with explicit state instead of the window.
        batch: Batch size of the program; None admits any.
        platforms: Platforms to compile for: cpu, cuda, rocm, tpu.
        verify: Function called with the complete folder before it gets its final name; if it
            raises, nothing is left behind.

    Returns:
        The path.

    Raises:
        ArtifactError: If the path exists, a platform is unknown or listed twice, or the network
            does not admit the requested kind or batch.
    """
    path = Path(path)
    if path.exists():
        raise ArtifactError(f"{path} is there already and is not overwritten: choose another --out")
    _check_platforms(platforms)
    files, fields = _contents(source, streaming, batch, platforms)
    path.parent.mkdir(parents=True, exist_ok=True)
    # On the same file system as the target, so that the final rename is atomic; the process number
    # keeps two exports to one path apart.
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        for name, data in files.items():
            (partial / name).write_bytes(data)
        (partial / manifest.MANIFEST).write_text(manifest.seal(fields), "utf-8")
        if verify is not None:
            verify(partial)
        partial.rename(path)
    except BaseException:  # also KeyboardInterrupt: verification can take minutes
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return path


def _check_platforms(platforms: tuple[str, ...]) -> None:
    unknown = [name for name in platforms if name not in _PLATFORMS]
    if unknown or not platforms or len({*platforms}) < len(platforms):
        raise ArtifactError(
            f"an artifact runs on some of {', '.join(_PLATFORMS)}, got {','.join(platforms)!r}: "
            "give each that is meant once"
        )


def describe(function: Any) -> dict[str, Any]:
    """Name and source text of a function, or of the function it wraps, for the manifest."""
    # An encoding is often a wrapper, whose own text would say nothing about the frames.
    function = inspect.unwrap(function)
    name = getattr(function, "__name__", None) or type(function).__name__
    try:
        return {"name": name, "source": inspect.getsource(function)}
    except (OSError, TypeError):  # a callable object, or the source file is gone
        return {"name": name, "source": repr(function)}


def _contents(
    source: Source, streaming: bool, batch: int | None, platforms: tuple[str, ...]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Content of the files, and the fields of the manifest."""
    # Weights are arguments of the program and not constants in it, so that they can be replaced.
    weights, frames = functions.named_weights(source), functions.frame_shape(source)
    export = functions.export_streaming if streaming else functions.export_window
    exported = export(source, batch=batch, platforms=platforms)
    files = {
        manifest.PROGRAM: bytes(exported.serialize()),
        manifest.WEIGHTS: pack(weights),
    }
    inputs = frames.update(shape=frames.shape[1:]) if streaming else source.example
    fields: dict[str, Any] = {
        "schema": manifest.SCHEMA,
        "kind": "streaming" if streaming else "window",
        "name": source.name,
        "step": source.step,
        # A reader that cannot deserialize the program names the jax that wrote it.
        "versions": {name: metadata.version(name) for name in ("snnjax", "jax", "jaxlib")},
        "platforms": list(platforms),
        "timesteps": frames.shape[0],
        "batch": "any" if batch is None else batch,
        "input": _leaf(inputs),
        "output": _leaf(exported.out_avals[-1], batched=True),
        "class_names": list(source.class_names),
        "encode": describe(source.encode),
        "readout": describe(source.readout),
        "clips": source.clips,
    }
    if streaming:
        state, axes = functions.resting_state(source)
        files[manifest.STATE] = pack(state)
        fields["state"] = {k: {**_leaf(v), "batch_axis": axes[k]} for k, v in state.items()}
    # Nothing is written that would be refused on loading, such as a wrong number of names.
    check_signature(exported, fields, source.name)
    return files, {**fields, "files": {k: manifest.digest(data) for k, data in files.items()}}


def _leaf(leaf: Any, *, batched: bool = False) -> dict[str, Any]:
    return {"shape": [int(n) for n in leaf.shape[batched:]], "dtype": str(leaf.dtype)}
