"""A network as pure functions of its named weights, and as programs for `jax.export`.

    window       (weights, inputs [B, ...])       -> logits [B, K]
    streaming    (weights, state, frame [B, ...]) -> (state, outputs [B, K])

Both run in inference mode: running statistics, no dropout, no random key. A window is encoded, run
in the network's own order and read out, as in evaluation. Streaming runs one frame at a time in
`order="time"`, the same function without batch statistics; XLA may sum in another order for one
frame than for T frames, see `docs/export.md`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from snnjax import nn
from snnjax.export.tensors import ArtifactError
from snnjax.export.weights import named_arrays
from snnjax.typing import Array, PyTree

__all__ = [
    "Source", "export_streaming", "export_window", "frame_shape", "named_weights", "resting_state",
]  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A trained network with its encoding and readout.

    Attributes:
        name: Name of the artifact, in its manifest and messages.
        network: The network with its weights.
        statistics: Running statistics, `TrainState.statistics`.
        encode: `(inputs [B, ...]) -> frames [T, B, *input_shape]`, without a random key. The
            manifest holds its source text, or that of the function it wraps (`functools.wraps`).
        readout: `(outputs [T, B, K]) -> logits [B, K]`.
        example: Shape and dtype of one example as `encode` takes it, without the batch axis.
        class_names: The K names.
        step: Completed training steps.
        clips: Number of consecutive examples that are clips of one recording.
    """

    name: str
    network: nn.Network
    statistics: PyTree
    encode: Callable[[Array], Array]
    readout: Callable[[Array], Array]
    example: jax.ShapeDtypeStruct
    class_names: tuple[str, ...]
    step: int = 0
    clips: int = 1


def named_weights(source: Source) -> dict[str, Array]:
    """All arrays that the outputs depend on, by name."""
    return named_arrays(_parts(source))[0]


def frame_shape(source: Source) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the frames of one example, `[T, *input_shape]`, by abstract evaluation."""
    # One example with a batch axis of 1, which the result leaves out.
    inputs = jax.ShapeDtypeStruct((1, *source.example.shape), source.example.dtype)
    frames = jax.eval_shape(source.encode, inputs)
    return jax.ShapeDtypeStruct((frames.shape[0], *frames.shape[2:]), frames.dtype)


def export_window(source: Source, *, batch: int | None, platforms: tuple[str, ...]) -> Any:
    """Exports the program of a window.

    Args:
        source: The network and its use.
        batch: Number of examples; None admits any number.
        platforms: Platforms to compile for.

    Returns:
        A `jax.export.Exported`.

    Raises:
        ArtifactError: If the network does not admit a batch of any size.
    """
    example = source.example
    # A function of the size: after a failure with a symbolic one, `_export` tries it with 1.
    arguments = lambda size: (_inputs(size, example.shape, example.dtype),)  # noqa: E731
    return _export(source, _window(source), arguments, batch, platforms)


def export_streaming(source: Source, *, batch: int | None, platforms: tuple[str, ...]) -> Any:
    """Exports the program of one timestep.

    Args:
        source: The network and its use.
        batch: Number of parallel streams; None admits any number.
        platforms: Platforms to compile for.

    Returns:
        A `jax.export.Exported`.

    Raises:
        ArtifactError: If the network cannot run one frame at a time, or does not admit a batch of
            any size.
    """
    network, frame = _streaming_network(source), frame_shape(source)

    def arguments(size: Any) -> tuple[Any, ...]:
        return _state_shapes(network, size), _inputs(size, frame.shape[1:], frame.dtype)

    return _export(source, _streaming(source, network), arguments, batch, platforms)


def resting_state(source: Source) -> tuple[dict[str, Array], dict[str, int | None]]:
    """Resting state of the neurons for one example, and the batch axis of each array.

    Args:
        source: The network and its use.

    Returns:
        Arrays by name, and axes by name; an axis is None if the array has no batch axis.

    Raises:
        ArtifactError: If the network cannot run one frame at a time, or its examples do not all
            start from the same state.
    """
    network = _streaming_network(source)
    # Two batch sizes reveal the batch axis: the one whose length differs.
    shapes = [_state_shapes(network, size) for size in (2, 3)]
    axes = {
        name: _differing_axis(leaf.shape, shapes[1][name].shape) for name, leaf in shapes[0].items()
    }
    # By value, for two batch sizes: the file holds the state of one example only.
    one, two = (_by_name(network.initial_state(size).neurons) for size in (1, 2))
    for name, axis in axes.items():
        repeated = one[name] if axis is None else jnp.repeat(one[name], 2, axis=axis)
        if not np.array_equal(repeated, two[name], equal_nan=True):
            raise ArtifactError(f"{name} does not start alike for all examples: no --streaming")
    return one, axes


def _window(source: Source) -> Callable[..., Any]:
    def window(weights: dict[str, Array], inputs: Array) -> Array:
        # Rebuilt from the argument: weights closed over would become constants of the program.
        network, statistics = _rebuild(_parts(source), weights)
        start = network.initial_state(inputs.shape[0])._replace(**statistics)
        outputs, _ = network(source.encode(inputs), start, training=False)
        return source.readout(outputs)

    return window


def _streaming(source: Source, network: nn.Network) -> Callable[..., Any]:
    parts = (network, _parts(source)[1])
    tree = jax.tree.structure(network.initial_state(1).neurons)

    def step(weights: dict[str, Array], state: dict[str, Array], frame: Array) -> Any:
        cell, statistics = _rebuild(parts, weights)
        names = list(_state_shapes(network, frame.shape[0]))
        neurons = jax.tree.unflatten(tree, [state[name] for name in names])
        start = nn.State(neurons, **statistics)
        # A window of one frame; its time axis is dropped from the output again.
        outputs, aux = cell(frame[None], start, training=False)
        return _by_name(aux.state), outputs[0]

    return step


def _export(source, function, arguments, batch, platforms) -> Any:
    """Exports a function of weights and `arguments(batch)`, for one batch size or for any."""
    # Shapes only: exporting traces the function and needs no values.
    weights = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), named_weights(source))
    export = jax_export.export(jax.jit(function), platforms=platforms)
    if batch is not None:
        with _no_source_locations():
            return export(weights, *arguments(batch))
    try:
        with _no_source_locations():
            return export(weights, *arguments(jax_export.symbolic_shape("batch")[0]))
    except Exception as error:
        # Fails again, and with its own message, if the symbolic size is not the reason.
        jax.eval_shape(function, weights, *arguments(1))
        reason = " ".join(str(error).split())[:160]
        raise ArtifactError(
            f"{source.name} does not admit a batch of any size: fix it by --batch N "
            f"({type(error).__name__}: {reason}...)"
        ) from error


@contextlib.contextmanager
def _no_source_locations() -> Iterator[None]:
    """Disables source locations in programs: they would hold file paths of this machine."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _streaming_network(source: Source) -> nn.Network:
    """The network in time order, which collects its outputs at every timestep."""
    refusal = f"{source.name} cannot run one frame at a time: "
    try:
        # In time order all layers advance by one timestep after the other.
        network = nn.Network(source.network.body, source.network.input_shape, order="time")
        counts = [
            (n, _output_count(source.network, source, n)) for n in {1, frame_shape(source).shape[0]}
        ]
    except ValueError as error:
        raise ArtifactError(f"{refusal}{error}. Leave out --streaming") from error
    if source.network.collect == "all" and any(given != left for given, left in counts):
        # A layer averages over the window or reads it whole without declaring it, so that one frame
        # is no step of it: the number of outputs reveals that.
        raise ArtifactError(
            f"{refusal}it does not give one output for each frame (of {counts[0][0]} frames "
            f"{counts[0][1]}, of {counts[-1][0]} {counts[-1][1]}). Leave out --streaming"
        )
    return network


def _output_count(network: nn.Network, source: Source, timesteps: int) -> int:
    """Number of outputs of the network for `timesteps` frames, by abstract evaluation."""
    frame = frame_shape(source)
    frames = jax.ShapeDtypeStruct((timesteps, 1, *frame.shape[1:]), frame.dtype)
    start = network.initial_state(1, statistics=source.statistics)
    run = lambda n, x: n(x, start, training=False)[0]  # noqa: E731
    return jax.eval_shape(run, network, frames).shape[0]


def _parts(source: Source) -> tuple[nn.Network, dict[str, PyTree]]:
    return source.network, {"statistics": source.statistics}


def _rebuild(parts: tuple[Any, ...], weights: dict[str, Array]) -> Any:
    arrays, structure = named_arrays(parts)
    return structure.unflatten([weights[name] for name in arrays])


def _by_name(tree: PyTree) -> dict[str, Any]:
    return named_arrays((tree,))[0]


def _state_shapes(network: nn.Network, size: Any) -> dict[str, Any]:
    return _by_name(jax.eval_shape(lambda: network.initial_state(size).neurons))


def _inputs(size: Any, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((size, *shape), dtype)


def _differing_axis(one: tuple[int, ...], other: tuple[int, ...]) -> int | None:
    axes = [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    return axes[0] if axes else None
