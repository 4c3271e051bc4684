"""Wiring: layers in sequence, residual connections, and layers that run once for all timesteps."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from snnjax import memory
from snnjax.nn._approximate import behind
from snnjax.nn._checks import check_layer
from snnjax.nn.contract import (
    Aux,
    Call,
    Layer,
    MemoryRequest,
    Placed,
    State,
    call_statistics,
    gather,
    layer_name,
    output_shape,
    parts_taken,
    place,
    replace,
)
from snnjax.ops.rounding import widen
from snnjax.typing import Array, Scan, bind

__all__ = ["Joints", "Residual", "Sequential", "StaticInput"]


@dataclasses.dataclass(frozen=True)
class Joints:
    """Cuts of a `Sequential` into parts that a memory strategy scans over depth.

    Attributes:
        scan: memory strategy over depth.
        starts: index of the first layer of each part.
        spikes: per part, True if its inputs are spikes, kept at one bit each.
        alone: per part, True if it is one layer with its own strategy over depth.
    """

    scan: Scan
    starts: tuple[int, ...]
    spikes: tuple[bool, ...]
    alone: tuple[bool, ...]


class Sequential(nnx.Module):
    """Layers in sequence, `x_i = layer_i(x_{i-1})`; without layers it is the identity.

    Outputs of a layer carry the name of its taps (`conv0`, `lif1`), for `memory.recompute(keep=)`,
    except those of a stack that has its own strategy over depth.

    Args:
        layers: layers of the contract `nn.contract.Layer`.
    """

    def __init__(self, *layers: Any):
        for layer in layers:
            check_layer("nn.Sequential", layer)
        self.layers, self.name = nnx.List(layers), "sequential"
        self.joints: Joints | None = None

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Applies the strategy to every layer, and cuts the sequence by `request.cut`."""
        parts, spiking = [], request.spiking
        for number, layer in enumerate(self.layers):
            inner = behind(request.child(spiking), list(self.layers)[number + 1 :])
            parts.append(place(layer, inner))
            spiking = parts[-1].spiking
        changed = replace(self, layers=nnx.List([part.layer for part in parts]))
        taken, scan = parts_taken(parts), request.cut
        # Reversal inverts stacks only; the layers between them are recomputed.
        if isinstance(scan, memory.Reverse):
            scan = (scan.inner or memory.recompute(1)) if "depth" in taken else None
        if scan is memory.store:
            changed, taken = replace(changed, joints=None), taken | {"depth"}
        elif isinstance(scan, memory.Recompute):
            # Cuts are static: the same network always has the same parts.
            joints = _find_joints(parts, scan, packs=bool(request.strategy.pack))
            changed = replace(changed, joints=joints)
            # Packed boundaries count as use of `pack`, even if no synapse packs.
            taken |= {"depth", "pack"} if any(joints.spikes) else {"depth"}
        return Placed(changed, spiking, taken, "block")

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """States of the layers at rest, in order."""
        states = []
        for layer in self.layers:
            states.append(layer.initial_state(shape))
            # Shapes are inferred, so that layers need no input size.
            shape = output_shape(layer, states[-1], shape)
        return State(tuple(s.neurons for s in states), tuple(s.statistics for s in states))

    def infer_shape(self, state: State, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the outputs of the last layer."""
        for layer, *own in zip(self.layers, *state, strict=True):
            shape = output_shape(layer, State(*own), shape)
        return tuple(shape)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Applies the layers in order to a sequence `[T, B, ...]`."""
        # The key of a layer depends on its position only, so cuts do not change random numbers.
        entries = [
            (layer, State(*own), call.child(i))
            for i, (layer, *own) in enumerate(zip(self.layers, *state, strict=True))
        ]
        # Positions make names unique within the sequence.
        names = tuple(layer_name(layer, i) for i, layer in enumerate(self.layers))
        if self.joints is None:
            outputs, auxes = _run(entries, inputs, names=names)
        else:
            starts, marks = self.joints.starts, (self.joints.spikes, self.joints.alone)
            pairs = list(itertools.pairwise((*starts, len(entries))))
            cut = [entries[a:b] for a, b in pairs]
            runs = [
                _run_alone if alone else bind(_run, names=names[a:b])
                for (a, b), alone in zip(pairs, self.joints.alone, strict=True)
            ]
            outputs, parts = memory.chain(
                runs, cut, inputs, scan=self.joints.scan, spikes=marks[0], alone=marks[1]
            )
            # A reversible stack at the end returns two streams.
            outputs = _join_streams(outputs)
            auxes = list(itertools.chain.from_iterable(parts))
        return outputs, gather(list(zip(names, auxes, strict=True)))


def _find_joints(parts: list[Placed], scan: Scan, *, packs: bool) -> Joints:
    """Places cuts around blocks, and between neurons and the next synapse.

    A cut keeps its activations, which cost least where they are spikes, at one bit each. If other
    layers stand between neurons and the next synapse, the cut moves back to the last spikes.

    Args:
        parts: layers under the strategy.
        scan: memory strategy over depth.
        packs: True if spikes are kept at one bit each.
    """
    starts, marks = [0], [False]
    # `due`: neurons or a block since the last cut; `last`: index of the last layer with spikes in.
    spikes, due, last = False, False, 0
    for number, part in enumerate(parts):
        last = number if spikes else last
        block = part.role in ("block", "loop")
        here = block or (number and parts[number - 1].role == "loop")
        if number and (here or (due and part.role == "synapse")):
            packed = packs and (spikes if here else last > starts[-1])
            starts.append(last if packed and not here else number)
            marks.append(packed)
            due = False
        fires = part.role == "neurons" or part.spiking > spikes
        spikes, due = part.spiking, due or block or fires
    # A stack scans its own blocks; recomputing it as one part would hold all of them.
    alone = tuple(parts[start].role == "loop" for start in starts)
    return Joints(scan, tuple(starts), tuple(marks), alone)


def _run(entries: Any, x: Any, *, names: tuple[str, ...]) -> tuple[Array, list[Aux]]:
    """Runs layers in sequence; an entry is a layer, its state and its call."""
    x, auxes = _join_streams(x), []
    for (layer, *own), name in zip(entries, names, strict=True):
        x, aux = layer(x, *own)
        x = checkpoint_name(x, name)
        auxes.append(aux)
    return x, auxes


def _run_alone(entries: Any, x: Any) -> tuple[Any, list[Aux]]:
    """Runs one layer with its own strategy; a reversible stack returns two separate streams."""
    # The streams are residuals already; their concatenation would be kept a second time.
    ((layer, *own),) = entries
    outputs, aux = getattr(layer, "streams", layer)(_join_streams(x), *own)
    return outputs, [aux]


def _join_streams(x: Any) -> Array:
    return jnp.concatenate(x, axis=-1) if isinstance(x, tuple) else x


class Residual(nnx.Module):
    """Residual connection, `y = shortcut(x) + branch(x)`; the sum is at least float32.

    Args:
        branch: layer on `[T, B, ...]`.
        shortcut: layer on the same inputs; None is the identity.

    Raises:
        ValueError: branch and shortcut have outputs of different shapes (on a call).
    """

    keeps_spikes: ClassVar[bool] = False  # True in a subclass whose `join` of spikes is spikes

    def __init__(self, branch: Layer, *, shortcut: Layer | None = None):
        check_layer("nn.Residual", branch)
        if shortcut is not None:
            check_layer("nn.Residual", shortcut)
        self.branch, self.name = branch, "residual"
        self.shortcut = Sequential() if shortcut is None else shortcut

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Applies the strategy to branch and shortcut; sums count as real numbers."""
        parts = [
            place(part, request.child(request.spiking)) for part in (self.branch, self.shortcut)
        ]
        changed = replace(self, branch=parts[0].layer, shortcut=parts[1].layer)
        spiking = self.keeps_spikes and all(part.spiking for part in parts)
        return Placed(changed, spiking, parts_taken(parts), "block")

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """The states of branch and shortcut at rest."""
        states = [part.initial_state(shape) for part in (self.branch, self.shortcut)]
        return State(tuple(s.neurons for s in states), tuple(s.statistics for s in states))

    def infer_shape(self, state: State, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Shape of branch and shortcut; None if they differ, which a call reports."""
        parts = zip((self.branch, self.shortcut), *state, strict=True)
        branch, shortcut = (output_shape(part, State(*own), shape) for part, *own in parts)
        return branch if branch == shortcut else None

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Sum of shortcut and branch on `[T, B, ...]`."""
        outputs, parts = [], []
        for i, (name, layer) in enumerate((("branch", self.branch), ("shortcut", self.shortcut))):
            own = State(state.neurons[i], state.statistics[i])
            y, aux = layer(inputs, own, call.child(i))
            outputs.append(y)
            parts.append((name, aux))
        y, x = outputs
        # A sum would broadcast one of the two silently.
        if x.shape != y.shape:
            raise ValueError(
                f"the branch gives {list(y.shape)} and the shortcut {list(x.shape)}: give a "
                "shortcut that changes the shape as the branch does, such as nn.Conv(..., kernel=1)"
            )
        return self.join(widen(x), widen(y)), gather(parts)

    def join(self, shortcut: Array, branch: Array) -> Array:
        """The sum; a subclass may join the outputs `[T, B, ...]` otherwise."""
        return shortcut + branch


class StaticInput(nnx.Module):
    """Applies a layer to the first timestep and repeats its outputs, `y[t] = layer(x[0])`.

    The image is computed at the memory and time of one timestep; `nn.Shared` computes such a layer
    before its loop over time.

    For inputs that are equal at every timestep (`encoding.direct`), this equals the layer itself;
    in training only if the layer's batch statistics are taken per timestep. Running statistics move
    once per call of the network, in time order too and with `nn.BatchNorm(update="step")`. Later
    frames of other inputs are ignored.

    Args:
        layer: a layer without neurons.

    Raises:
        ValueError: the layer has neurons, whose outputs change over time (on `initial_state`).

    Reference: the first layer of the released code of Kim et al., 2023, arXiv:2305.18360.
    """

    def __init__(self, layer: Any):
        check_layer("nn.StaticInput", layer)
        # The name is part of tap names in saved records.
        self.layer, self.name = layer, "once"

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Statistics of the layer."""
        state = self.layer.initial_state(shape)
        if jax.tree.leaves(state.neurons):
            raise ValueError(
                "neurons change from timestep to timestep: put them behind "
                "nn.StaticInput, not inside"
            )
        return state._replace(statistics=call_statistics(state.statistics))

    def infer_shape(self, state: State, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the outputs of the layer."""
        return output_shape(self.layer, state, shape)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Maps `[T, B, ...]` to `[T, B, ...]`, equal at every timestep."""
        outputs, aux = self.layer(inputs[:1], state, call)
        # One image, so one update: in time order this layer runs T times on equal frames.
        aux = aux._replace(statistics=call_statistics(aux.statistics))
        return jnp.broadcast_to(outputs, (len(inputs), *outputs.shape[1:])), aux
