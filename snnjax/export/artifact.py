"""Artifacts: a network as a program and its weights, independent of the code that defined it.

    artifact = export.load("FOLDER")

    window       logits = artifact(inputs)                   [B, ...] -> [B, K]
    streaming    state = artifact.initial_state(batch)
                 state, outputs = artifact(state, frame)     [B, *input_shape] -> [B, K]

Loading needs jax, numpy, safetensors and flatbuffers, and no other package of snnjax. It reads
JSON, a safetensors file and StableHLO, a list of array operations: nothing runs on loading, and an
artifact that is called can only compute. Digests detect damage, not malice: an attacker who changes
a file can change the manifest. XLA compiles the program on the first call of each batch size, as
for any jitted function.

`check_program` makes sure that a program only computes. StableHLO is a closed list of array
operations with one exception: a `custom_call` names any function registered in the process, among
them the one that calls back into Python. JAX checks these names on export but not on loading.
Operations that exchange data with the host (`infeed`, `outfeed`, `send`, `recv`) and programs with
effects are refused too.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.export import _manifest as manifests
from snnjax.export.tensors import ArtifactError, check_match, read_bytes, unpack
from snnjax.typing import Array

__all__ = ["Artifact", "StreamingArtifact", "WindowArtifact", "check_program", "load"]


_PURE = {
    # Sharding annotations and assertions on symbolic shapes: the compiler removes them.
    *("Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape", "shape_assertion"),
    *("stablehlo.dynamic_reduce_window", "stablehlo.dynamic_rng_bit_generator"),
    *("stablehlo.dynamic_top_k", "stablehlo.dynamic_approx_top_k", "ApproxTopK"),
    # Operations that XLA expands by itself.
    *("mhlo.topk", "mhlo.erf", "chlo.top_k", "chlo.erf"),
    # Random bits on a GPU.
    *("cu_threefry2x32_ffi", "hip_threefry2x32_ffi"),
}
_HOST = ("infeed", "outfeed", "send", "recv")
_CALL = re.compile(r"stablehlo\.custom_call\b")
# MLIR prints a call in two ways: `stablehlo.custom_call @name(` and, in generic form,
# `"stablehlo.custom_call"(...) <{..., call_target_name = "name"`.
_TARGET = re.compile(r'custom_call @(?:"([^"]*)"|([\w.$-]+))|call_target_name = "([^"]*)"')


class PlatformError(ArtifactError):
    """The artifact is intact but does not run on the platform of this process."""


@dataclasses.dataclass(frozen=True, eq=False)
class WindowArtifact:
    """A program from stored inputs to logits, over a fixed number of timesteps.

    Attributes:
        manifest: Metadata, see `export.manifest`.
        weights: Arrays by name.
        exported: The program, `(weights, inputs) -> logits`.
        run: The jitted program.
    """

    manifest: dict[str, Any]
    weights: dict[str, Array]
    exported: Any
    run: Callable[..., Any]

    def __call__(self, inputs: jax.typing.ArrayLike) -> Array:
        """Computes the logits of a batch of examples.

        Args:
            inputs: `[B, ...]`, with the shape and dtype of `manifest["input"]`.

        Returns:
            Logits `[B, K]`, in the order of `manifest["class_names"]`.

        Raises:
            ArtifactError: If the inputs have another shape or dtype.
        """
        return self.run(self.weights, _validate(self.manifest, inputs))


@dataclasses.dataclass(frozen=True, eq=False)
class StreamingArtifact:
    """A program of one timestep, whose neuron state is passed in and out by the caller.

    Attributes:
        manifest: Metadata, see `export.manifest`; `encode` and `readout` hold the source text of
            the functions that make frames and read out the outputs.
        weights: Arrays by name.
        exported: The program, `(weights, state, frame) -> (state, outputs)`.
        run: The jitted program.
        resting_state: Resting state of the neurons for one example, by name.
    """

    manifest: dict[str, Any]
    weights: dict[str, Array]
    exported: Any
    run: Callable[..., Any]
    resting_state: dict[str, np.ndarray]

    def initial_state(self, batch: int) -> dict[str, Array]:
        """Resting state of all neurons.

        Args:
            batch: Number of examples or parallel streams.

        Returns:
            Arrays by name, the first argument of a call.

        Raises:
            ArtifactError: If the artifact has another fixed batch size.
        """
        _check_batch(self.manifest, batch)
        return {name: self._repeat(name, batch) for name in self.resting_state}

    def __call__(
        self, state: Mapping[str, Array], frame: jax.typing.ArrayLike
    ) -> tuple[dict[str, Array], Array]:
        """Computes one timestep.

        Args:
            state: Result of `initial_state` or of the previous call.
            frame: `[B, *input_shape]`, with the shape and dtype of `manifest["input"]`.

        Returns:
            The next state, and the outputs `[B, K]` of this timestep.

        Raises:
            ArtifactError: If the frame has another shape or dtype, or the state another batch size.
        """
        frame = _validate(self.manifest, frame)
        expected = jax.eval_shape(lambda: self.initial_state(len(frame)))
        check_match(dict(state), expected, f"the state does not fit {len(frame)} frames")
        return self.run(self.weights, dict(state), frame)

    def _repeat(self, name: str, batch: int) -> Array:
        axis = self.manifest["state"][name]["batch_axis"]
        leaf = jnp.asarray(self.resting_state[name])
        return leaf if axis is None else jnp.repeat(leaf, batch, axis=axis)


Artifact = WindowArtifact | StreamingArtifact


def load(
    path: str | Path, *, weights: str | Path | None = None, digest: str | None = None
) -> Artifact:
    """Loads an artifact written by `snnjax export` or `export.save`.

    Args:
        path: Folder of the artifact.
        weights: A safetensors file to use instead of the artifact's own, with the same names,
            shapes and dtypes.
        digest: `manifest["digest"]` of the artifact as it was exported, 64 hexadecimal digits from
            a source of trust. It covers every file of the folder. None admits any artifact.

    Returns:
        A callable artifact; `manifest["kind"]` is `"window"` or `"streaming"`.

    Raises:
        PlatformError: If the artifact does not run on the platform of this process.
        ArtifactError: If it is damaged, of an unknown schema, not the pinned one, its program and
            manifest differ, or its program may do more than compute.

    Example:
        artifact = export.load("runs/mine/export/window-440")
        classes = artifact(images).argmax(-1)
    """
    path = Path(path)
    manifest = manifests.read(path, pinned=digest)
    _check_platform(path, manifest)
    exported = _read_program(path, manifest)
    arguments = _arguments(exported, manifest, f"the program of {path}")
    check_signature(exported, manifest, f"the program of {path}")
    # The artifact's own weights are read and verified even if they are replaced.
    own = manifests.read_file(path, manifest, manifests.WEIGHTS)
    source = path / manifests.WEIGHTS if weights is None else Path(weights)
    arrays = unpack(own if weights is None else read_bytes(source), source)
    check_match(arrays, arguments[0], f"the weights {source} do not fit the program of {path}")
    on_device = {name: _put(name, array) for name, array in arrays.items()}
    # Jitted once per artifact: XLA then compiles on the first call of each batch size.
    run = jax.jit(exported.call)
    _check_lowering(run, arguments, manifest, f"the program of {path}")
    if manifest["kind"] == "window":
        return WindowArtifact(manifest, on_device, exported, run)
    data = manifests.read_file(path, manifest, manifests.STATE)
    state = unpack(data, path / manifests.STATE)
    shapes = {name: _struct(leaf) for name, leaf in manifest["state"].items()}
    check_match(state, shapes, f"the state of {path} does not fit its manifest")
    return StreamingArtifact(manifest, on_device, exported, run, state)


def check_signature(exported: Any, manifest: dict[str, Any], subject: str) -> None:
    """Checks the arguments and results of a program against the manifest.

    Args:
        exported: A `jax.export.Exported`.
        manifest: Fields of the manifest.
        subject: First words of the error message.

    Raises:
        ArtifactError: They differ; the message names the first difference.
    """
    *_, inputs = arguments = _arguments(exported, manifest, subject)
    batch = manifest["batch"]
    _check_leaf(inputs, manifest["input"], 0, batch, f"{subject}: its input")
    results = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    outputs, names = exported.out_avals[-1], manifest["class_names"]
    shape = list(outputs.shape[1:])
    if [shape, str(outputs.dtype)] != [manifest["output"]["shape"], manifest["output"]["dtype"]]:
        raise _differs(f"{subject}: its output", outputs, manifest["output"])
    # One output per class; before the readout there may be several.
    size, streaming = (shape or [1])[-1], manifest["kind"] == "streaming"
    if names and (size % len(names) if streaming else size != len(names)):
        raise ArtifactError(
            f"{subject} has {size} outputs and its manifest names {len(names)} classes: export anew"
        )
    if list(exported.platforms) != manifest["platforms"] or exported.nr_devices != 1:
        raise ArtifactError(
            f"{subject} is for {', '.join(exported.platforms)} on {exported.nr_devices} devices "
            f"and its manifest says {', '.join(manifest['platforms'])} on 1: export anew"
        )
    if not streaming:
        return
    state = arguments[1]
    if set(state) != set(manifest["state"]):
        raise ArtifactError(f"{subject} has another state than its manifest: export anew")
    for name, leaf in manifest["state"].items():
        _check_leaf(state[name], leaf, leaf["batch_axis"], batch, f"{subject}: its state {name}")
    if not isinstance(results, tuple) or results[0] != state:
        raise ArtifactError(f"{subject} does not return the state that it takes: export anew")


def _check_leaf(
    actual: Any, leaf: dict[str, Any], axis: int | None, batch: Any, subject: str
) -> None:
    """Checks an argument against its entry in the manifest, which has one example."""
    shape = list(actual.shape)
    if axis is not None and axis < len(shape):
        size = shape.pop(axis)
        # A size that is free until the call is an expression and no int.
        if (batch == "any") == isinstance(size, int) or batch not in ("any", size):
            raise ArtifactError(
                f"{subject} takes batches of {size} and its manifest says {batch}: export anew"
            )
    expected = list(leaf["shape"])
    # Of an input the manifest has no batch axis, of a state one of length 1.
    if "batch_axis" in leaf and axis is not None and expected.pop(axis) != 1:
        raise _differs(subject, actual, leaf)
    if shape != expected or str(actual.dtype) != leaf["dtype"]:
        raise _differs(subject, actual, leaf)


def _differs(subject: str, actual: Any, leaf: dict[str, Any]) -> ArtifactError:
    return ArtifactError(
        f"{subject} is {actual.dtype}{list(actual.shape)} and its manifest says "
        f"{leaf['dtype']}{leaf['shape']} for one example: export anew"
    )


def _struct(leaf: dict[str, Any]) -> jax.ShapeDtypeStruct:
    try:
        return jax.ShapeDtypeStruct(tuple(leaf["shape"]), jnp.dtype(leaf["dtype"]))
    except TypeError as error:
        raise ArtifactError(f"{leaf['dtype']!r} is no dtype: export the artifact anew") from error


def _read_program(path: Path, manifest: dict[str, Any]) -> Any:
    from jax import export as jax_export

    data = manifests.read_file(path, manifest, manifests.PROGRAM)
    try:
        exported = jax_export.deserialize(bytearray(data))
        # The text is parsed here, so that a damaged program fails with the message below and not
        # on its first call.
        exported.mlir_module()
    except Exception as error:
        raise ArtifactError(
            f"the program of {path} cannot be read ({type(error).__name__}: {error}): it was "
            f"written by jax {manifest['versions'].get('jax')} and here is jax {jax.__version__}; "
            "install that version or a newer one, or export anew"
        ) from error
    check_program(exported, f"the program of {path}")
    return exported


def _arguments(exported: Any, manifest: dict[str, Any], subject: str) -> tuple[Any, ...]:
    """Shapes and dtypes of the program's arguments."""
    try:
        # A changed file may hold any program: its signature must fit the kind in the manifest.
        arguments, options = jax.tree.unflatten(exported.in_tree, exported.in_avals)
        assert not options and len(arguments) == (2 if manifest["kind"] == "window" else 3)
        assert all(isinstance(argument, dict) for argument in arguments[:-1])
        assert hasattr(arguments[-1], "dtype") and exported.out_avals
    except (AssertionError, TypeError, ValueError) as error:
        kind = manifest["kind"]
        raise ArtifactError(f"{subject} is none of kind {kind}: export anew") from error
    return arguments


def _check_lowering(run: Any, arguments: Any, manifest: dict[str, Any], subject: str) -> None:
    """Checks that the code of a program fits its own signature, without compiling it."""
    # A size that is free until the call is an expression and no int.
    free = 1 if manifest["batch"] == "any" else manifest["batch"]
    sizes = lambda shape: tuple(n if isinstance(n, int) else free for n in shape)  # noqa: E731
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(sizes(x.shape), x.dtype), arguments)
    try:
        run.lower(*shapes)
    # Whatever the parsers of a changed program raise.
    except Exception as error:
        raise ArtifactError(
            f"{subject} cannot be called ({type(error).__name__}: {error}): export anew"
        ) from error


def _check_platform(path: Path, manifest: dict[str, Any]) -> None:
    here = jax.default_backend()
    # jax.export distinguishes the two kinds of GPU, the backend does not.
    names = ("cuda", "rocm") if here == "gpu" else (here,)
    if not set(names) & set(manifest["platforms"]):
        there = ",".join(map(str, manifest["platforms"]))
        raise PlatformError(
            f"{path} runs on {there} and this process computes on {names[0]}: set JAX_PLATFORMS, "
            f"or export it anew with --platforms {there},{names[0]}"
        )


def _put(name: str, array: np.ndarray) -> Array:
    on_device = jnp.asarray(array)
    # Without 64-bit mode JAX narrows float64 silently, and the program would not accept it.
    if on_device.dtype != array.dtype:
        raise ArtifactError(f"{name} is {array.dtype}: set JAX_ENABLE_X64=1 before jax is imported")
    return on_device


def _validate(manifest: dict[str, Any], inputs: jax.typing.ArrayLike) -> Array:
    shape, dtype = manifest["input"]["shape"], manifest["input"]["dtype"]
    array = jnp.asarray(inputs)
    if array.ndim != len(shape) + 1 or list(array.shape[1:]) != shape or str(array.dtype) != dtype:
        sizes = ", ".join(map(str, ["B", *shape]))
        raise ArtifactError(
            f"{manifest['name']} takes {dtype}[{sizes}], got {array.dtype}{list(array.shape)}: "
            "give examples as the data set stores them (streaming: encoded frames), in a batch"
        )
    _check_batch(manifest, array.shape[0])
    return array


def _check_batch(manifest: dict[str, Any], batch: int) -> None:
    size = manifest["batch"]
    if batch < 1 or size not in ("any", batch):
        accepted = "at least one example" if size == "any" else f"{size} examples"
        raise ArtifactError(
            f"{manifest['name']} takes batches of {accepted}, got {batch}"
            + ("" if size == "any" else ": fill the batch up, or export with --batch any")
        )


def check_program(exported: Any, subject: str) -> None:
    """Checks a program before any of it runs.

    Args:
        exported: A `jax.export.Exported`.
        subject: First words of the error message.

    Raises:
        ArtifactError: If the program could do more than compute on arrays.
    """
    text = exported.mlir_module()
    targets = {"".join(groups) for groups in _TARGET.findall(text)}
    suspicious = sorted(targets - _PURE)
    # A form of printing that _TARGET does not know must not slip through.
    if len(_CALL.findall(text)) > len(_TARGET.findall(text)):
        suspicious.append("a call without a name")
    suspicious += [name for name in _HOST if f"stablehlo.{name}" in text]
    if exported.ordered_effects or exported.unordered_effects:
        suspicious.append("effects")
    if suspicious:
        raise ArtifactError(
            f"{subject} is refused: its program does more than arithmetic "
            f"({', '.join(suspicious)}), which no network needs: do not run it, or make it anew "
            "from a run you trust"
        )
