"""A network as pure functions of its weights by name, and as programs for `jax.export`.

    window       (weights, inputs [B, ...])       -> logits [B, K]
    streaming    (weights, state, frame [B, ...]) -> (state, outputs [B, K])

Both run in inference: running statistics, no dropout, no random key. A window is encoded, run in
the network's own order and read out, as evaluation does it. Streaming runs one frame at a time in
`order="time"`, which without batch statistics is the same function; XLA may add numbers up in
another order where it sees one frame instead of T of them, see `docs/export.md`.
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
from snnjax.export.errors import ArtifactError
from snnjax.export.weights import array_names
from snnjax.typing import Array, PyTree

__all__ = ["Source", "export_streaming", "export_window", "frame_of", "rest_of", "weights_of"]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A trained network and how it is used.

    Attributes:
        name: what to call it.
        network: with its weights.
        statistics: its running statistics, `TrainState.statistics`.
        encode: `(inputs [B, ...]) -> frames [T, B, *input_shape]`, without a random key.
        readout: `(outputs [T, B, K]) -> logits [B, K]`.
        example: shape and type of one example as `encode` takes it, without the batch axis.
        class_names: K names.
        step: updates done.
        clips: neighbouring examples that are judged as one recording.
        told: what the manifest says of `encode` and `readout`, by those names.
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
    told: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


def weights_of(source: Source) -> dict[str, Array]:
    """All arrays that an answer depends on, by name."""
    parts = _parts(source)
    return dict(zip(array_names(parts), jax.tree.leaves(parts), strict=True))


def frame_of(source: Source) -> jax.ShapeDtypeStruct:
    """Shape and type of the frames of one example, `[T, *input_shape]`; nothing is computed."""
    inputs = jax.ShapeDtypeStruct((1, *source.example.shape), source.example.dtype)
    frames = jax.eval_shape(source.encode, inputs)
    return jax.ShapeDtypeStruct((frames.shape[0], *frames.shape[2:]), frames.dtype)


def export_window(source: Source, *, batch: int | None, platforms: tuple[str, ...]) -> Any:
    """The program of a window.

    Args:
        source: What to export.
        batch: Examples; None is any number of them.
        platforms: Which it shall run on.

    Raises:
        ArtifactError: The network does not admit a batch of any size.
    """
    example = source.example
    given = lambda size: (_inputs(size, example.shape, example.dtype),)  # noqa: E731
    return _exported(source, _window(source), given, batch, platforms)


def export_streaming(source: Source, *, batch: int | None, platforms: tuple[str, ...]) -> Any:
    """The program of one timestep.

    Args:
        source: What to export.
        batch: Streams side by side; None is any number of them.
        platforms: Which it shall run on.

    Raises:
        ArtifactError: The network cannot run one frame at a time, or does not admit a batch of any
            size.
    """
    network, frame = _in_time_order(source), frame_of(source)

    def given(size: Any) -> tuple[Any, ...]:
        return _rest(network, size), _inputs(size, frame.shape[1:], frame.dtype)

    return _exported(source, _streaming(source, network), given, batch, platforms)


def rest_of(source: Source) -> tuple[dict[str, Array], dict[str, int | None]]:
    """The neurons of one example at rest, and the batch axis of each array; None where it has none.

    Raises:
        ArtifactError: The network cannot run one frame at a time, or its examples do not all start
            from the same state.
    """
    network = _in_time_order(source)
    shapes = [_rest(network, size) for size in (2, 3)]
    axes = {name: _differing(leaf.shape, shapes[1][name].shape) for name, leaf in shapes[0].items()}
    one, two = (_named(network.initial_state(size).neurons) for size in (1, 2))
    for name, axis in axes.items():
        wide = one[name] if axis is None else jnp.repeat(one[name], 2, axis=axis)
        if not np.array_equal(wide, two[name], equal_nan=True):
            raise ArtifactError(f"{name} does not start alike for all examples: no --streaming")
    return one, axes


def _window(source: Source) -> Callable[..., Any]:
    def window(weights: dict[str, Array], inputs: Array) -> Array:
        network, statistics = _rebuilt(_parts(source), weights)
        start = network.initial_state(inputs.shape[0])._replace(**statistics)
        outputs, _ = network(source.encode(inputs), start, training=False)
        return source.readout(outputs)

    return window


def _streaming(source: Source, network: nn.Network) -> Callable[..., Any]:
    parts = (network, _parts(source)[1])
    tree = jax.tree.structure(network.initial_state(1).neurons)

    def step(weights: dict[str, Array], state: dict[str, Array], frame: Array) -> Any:
        cell, statistics = _rebuilt(parts, weights)
        names = list(_rest(network, frame.shape[0]))
        neurons = jax.tree.unflatten(tree, [state[name] for name in names])
        start = nn.State(neurons, **statistics)
        outputs, aux = cell(frame[None], start, training=False)
        return _named(aux.state), outputs[0]

    return step


def _exported(source, function, given, batch, platforms) -> Any:
    """The program, for a batch of that size or of any."""
    weights = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), weights_of(source))
    export = jax_export.export(jax.jit(function), platforms=platforms)
    if batch is not None:
        with _without_places():
            return export(weights, *given(batch))
    try:
        with _without_places():
            return export(weights, *given(jax_export.symbolic_shape("batch")[0]))
    except Exception as error:
        jax.eval_shape(function, weights, *given(1))  # a failure of another kind shows itself
        reason = " ".join(str(error).split())[:160]
        raise ArtifactError(
            f"{source.name} does not admit a batch of any size: fix it by --batch N "
            f"({type(error).__name__}: {reason}...)"
        ) from error


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """Leaves out of the program in which files its operations were written: paths of a machine."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _in_time_order(source: Source) -> nn.Network:
    """The network as one step; what leaves at each timestep is collected by nobody."""
    refusal = f"{source.name} cannot run one frame at a time: "
    try:
        network = nn.Network(source.network.body, source.network.input_shape, order="time")
        counts = [(n, _outputs(source.network, source, n)) for n in {1, frame_of(source).shape[0]}]
    except ValueError as error:
        raise ArtifactError(f"{refusal}{error}. Leave out --streaming") from error
    if source.network.collect == "all" and any(given != left for given, left in counts):
        # It takes a mean, or whole images, and does not say so: one frame is no step of it.
        raise ArtifactError(
            f"{refusal}it does not give one output for each frame (of {counts[0][0]} frames "
            f"{counts[0][1]}, of {counts[-1][0]} {counts[-1][1]}). Leave out --streaming"
        )
    return network


def _outputs(network: nn.Network, source: Source, timesteps: int) -> int:
    """How many outputs leave a network that was given so many frames; nothing is computed."""
    frame = frame_of(source)
    frames = jax.ShapeDtypeStruct((timesteps, 1, *frame.shape[1:]), frame.dtype)
    start = network.initial_state(1, statistics=source.statistics)
    run = lambda n, x: n(x, start, training=False)[0]  # noqa: E731
    return jax.eval_shape(run, network, frames).shape[0]


def _parts(source: Source) -> tuple[nn.Network, dict[str, PyTree]]:
    return source.network, {"statistics": source.statistics}


def _rebuilt(parts: tuple[Any, ...], weights: dict[str, Array]) -> Any:
    leaves = [weights[name] for name in array_names(parts)]
    return jax.tree.unflatten(jax.tree.structure(parts), leaves)


def _named(tree: PyTree) -> dict[str, Any]:
    return dict(zip(array_names((tree,)), jax.tree.leaves(tree), strict=True))


def _rest(network: nn.Network, size: Any) -> dict[str, Any]:
    return _named(jax.eval_shape(lambda: network.initial_state(size).neurons))


def _inputs(size: Any, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((size, *shape), dtype)


def _differing(one: tuple[int, ...], other: tuple[int, ...]) -> int | None:
    axes = [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    return axes[0] if axes else None
