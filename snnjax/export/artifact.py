"""Artifacts: a network as a program and its weights, without the code it was written in.

    artifact = export.load("FOLDER")

    window       logits = artifact(inputs)                   [B, ...] -> [B, K]
    streaming    state = artifact.initial_state(batch)
                 state, outputs = artifact(state, frame)     [B, *input_shape] -> [B, K]

Loading needs jax, numpy, safetensors and flatbuffers, and nothing else of snnjax. It reads JSON, a
safetensors file and StableHLO, a list of operations on arrays: nothing runs on loading, and what
runs when the artifact is called can do no more than compute. Digests find damage, not malice: who
changes a file can change the manifest. XLA compiles the program on the first call of each batch
size, as it does with any jitted function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.export import manifest as manifests
from snnjax.export.errors import ArtifactError, PlatformError
from snnjax.export.program_check import refuse_more_than_arithmetic
from snnjax.export.tensors import read_bytes, refuse_difference, unpack
from snnjax.typing import Array

__all__ = ["Artifact", "StreamingArtifact", "WindowArtifact", "load"]


@dataclasses.dataclass(frozen=True, eq=False)
class WindowArtifact:
    """Inputs as the data set stores them to logits, over a fixed number of timesteps.

    Attributes:
        manifest: what it is, see `export.manifest`.
        weights: its arrays by name.
        exported: the program, `(weights, inputs) -> logits`.
        run: the same, jitted.
    """

    manifest: dict[str, Any]
    weights: dict[str, Array]
    exported: Any
    run: Callable[..., Any]

    def __call__(self, inputs: jax.typing.ArrayLike) -> Array:
        """Judges examples.

        Args:
            inputs: `[B, ...]`, shape and type as `manifest["input"]` says.

        Returns:
            Logits `[B, K]`, in the order of `manifest["class_names"]`.

        Raises:
            ArtifactError: The inputs have another shape or type.
        """
        return self.run(self.weights, _checked(self.manifest, inputs))


@dataclasses.dataclass(frozen=True, eq=False)
class StreamingArtifact:
    """One frame in, one output out; the state of the neurons goes through the caller's hands.

    Attributes:
        manifest: what it is, see `export.manifest`; its `encode` and `readout` tell how frames are
            made and what to do with the outputs.
        weights: its arrays by name.
        exported: the program, `(weights, state, frame) -> (state, outputs)`.
        run: the same, jitted.
        rest: the neurons of one example at rest, by name.
    """

    manifest: dict[str, Any]
    weights: dict[str, Array]
    exported: Any
    run: Callable[..., Any]
    rest: dict[str, np.ndarray]

    def initial_state(self, batch: int) -> dict[str, Array]:
        """All neurons at rest.

        Args:
            batch: Examples, or streams, side by side.

        Raises:
            ArtifactError: The artifact takes another number of them.
        """
        _check_batch(self.manifest, batch)
        return {name: self._wide(name, batch) for name in self.rest}

    def __call__(
        self, state: Mapping[str, Array], frame: jax.typing.ArrayLike
    ) -> tuple[dict[str, Array], Array]:
        """One timestep.

        Args:
            state: From `initial_state`, or from the call before.
            frame: `[B, *input_shape]`, shape and type as `manifest["input"]` says.

        Returns:
            The state after it, and the outputs `[B, K]` of this timestep.

        Raises:
            ArtifactError: The frame has another shape or type, or the state is of another batch.
        """
        frame = _checked(self.manifest, frame)
        like = jax.eval_shape(lambda: self.initial_state(len(frame)))
        refuse_difference(dict(state), like, f"the state does not fit {len(frame)} frames")
        return self.run(self.weights, dict(state), frame)

    def _wide(self, name: str, batch: int) -> Array:
        axis, leaf = self.manifest["state"][name]["batch_axis"], jnp.asarray(self.rest[name])
        return leaf if axis is None else jnp.repeat(leaf, batch, axis=axis)


Artifact = WindowArtifact | StreamingArtifact


def load(path: str | Path, *, weights: str | Path | None = None) -> Artifact:
    """Loads an artifact that `snnjax export` or `export.save` made.

    Args:
        path: Its folder.
        weights: A safetensors file in place of its own, of the same names, shapes and types.

    Raises:
        PlatformError: It is for other machines than this one.
        ArtifactError: It is damaged, of an unknown schema, or its program may do more than compute.

    Example:
        artifact = export.load("runs/mine/export/window-440")
        classes = artifact(images).argmax(-1)
    """
    path = Path(path)
    manifest = manifests.read(path)
    _refuse_platform(path, manifest)
    exported = _program(path, manifest)
    own = manifests.read_file(path, manifest, manifests.WEIGHTS)
    source = path / manifests.WEIGHTS if weights is None else Path(weights)
    arrays = unpack(own if weights is None else read_bytes(source), source)
    asked = _arguments(path, exported, manifest)
    refuse_difference(arrays, asked[0], f"the weights {source} do not fit the program of {path}")
    placed = {name: _on_device(name, array) for name, array in arrays.items()}
    run = jax.jit(exported.call)
    if manifest["kind"] == "window":
        return WindowArtifact(manifest, placed, exported, run)
    data = manifests.read_file(path, manifest, manifests.STATE)
    rest = unpack(data, path / manifests.STATE)
    if set(rest) != set(manifest["state"]) or set(rest) != set(asked[1]):
        raise ArtifactError(f"{path}: state, manifest and program differ: export it anew")
    return StreamingArtifact(manifest, placed, exported, run, rest)


def _program(path: Path, manifest: dict[str, Any]) -> Any:
    from jax import export as jax_export

    data = manifests.read_file(path, manifest, manifests.PROGRAM)
    try:
        exported = jax_export.deserialize(bytearray(data))
        exported.mlir_module()
    except Exception as error:
        raise ArtifactError(
            f"the program of {path} cannot be read ({type(error).__name__}: {error}): it was "
            f"written by jax {manifest['versions'].get('jax')} and here is jax {jax.__version__}; "
            "install that version or a newer one, or export anew"
        ) from error
    refuse_more_than_arithmetic(exported, f"the program of {path}")
    return exported


def _arguments(path: Path, exported: Any, manifest: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of the program, as shapes."""
    try:
        arguments, options = jax.tree.unflatten(exported.in_tree, exported.in_avals)
        assert not options and len(arguments) == (2 if manifest["kind"] == "window" else 3)
        assert all(isinstance(argument, dict) for argument in arguments[:-1])
    except (AssertionError, TypeError, ValueError) as error:
        kind = manifest["kind"]
        raise ArtifactError(f"the program of {path} is none of kind {kind}: export anew") from error
    return arguments


def _refuse_platform(path: Path, manifest: dict[str, Any]) -> None:
    here = jax.default_backend()
    names = ("cuda", "rocm") if here == "gpu" else (here,)
    if not set(names) & set(manifest["platforms"]):
        there = ",".join(map(str, manifest["platforms"]))
        raise PlatformError(
            f"{path} runs on {there} and this process computes on {names[0]}: set JAX_PLATFORMS, "
            f"or export it anew with --platforms {there},{names[0]}"
        )


def _on_device(name: str, array: np.ndarray) -> Array:
    placed = jnp.asarray(array)
    if placed.dtype != array.dtype:
        raise ArtifactError(f"{name} is {array.dtype}: set JAX_ENABLE_X64=1 before jax is imported")
    return placed


def _checked(manifest: dict[str, Any], given: jax.typing.ArrayLike) -> Array:
    shape, dtype = manifest["input"]["shape"], manifest["input"]["dtype"]
    array = jnp.asarray(given)
    if array.ndim != len(shape) + 1 or list(array.shape[1:]) != shape or str(array.dtype) != dtype:
        sizes = ", ".join(map(str, ["B", *shape]))
        raise ArtifactError(
            f"{manifest['name']} takes {dtype}[{sizes}], got {array.dtype}{list(array.shape)}: "
            "give examples as the data set stores them (streaming: encoded frames), in a batch"
        )
    _check_batch(manifest, array.shape[0])
    return array


def _check_batch(manifest: dict[str, Any], batch: int) -> None:
    takes = manifest["batch"]
    if batch < 1 or takes not in ("any", batch):
        one = "at least one example" if takes == "any" else f"{takes} examples"
        raise ArtifactError(
            f"{manifest['name']} takes batches of {one}, got {batch}"
            + ("" if takes == "any" else ": fill the batch up, or export with --batch any")
        )
