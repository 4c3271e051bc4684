"""A spiking network over T timesteps of constant inputs, in the memory of one timestep.

The network is called frame by frame, its state in and out, in whatever order it has; nothing of
shape `[T, ...]` exists. A step is the same function of frame and state for every T, so that one run
gives the outputs of all windows that are no longer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from snnjax import nn
from snnjax.nn.taps import in_order
from snnjax.ops.arguments import as_floating, check_counts
from snnjax.ops.rounding import widen_to
from snnjax.typing import Array, PyTree

__all__ = ["accumulate", "mean_outputs"]


def mean_outputs(
    net: nn.Network,
    inputs: Array,
    *,
    timesteps: int | Sequence[int],
    statistics: PyTree | None = None,
) -> dict[int, Array]:
    """Outputs averaged over T timesteps of a constant input, for several T by one run.

        y_T = 1/T sum over t < T of outputs[t]

    Equals `readout.rate` of the outputs for `encoding.direct(inputs, timesteps=T)`, up to the order
    of summation, in memory that does not depend on T. A network converted with `shift="step"` fits
    one T only.

    Args:
        net: spiking network, in any order.
        inputs: examples `[B, *input_shape]`.
        timesteps: number T, or several.
        statistics: running statistics, for networks with batch norm.

    Returns:
        Logits `[B, K]` by number of timesteps, in ascending order.

    Raises:
        ValueError: a number of timesteps below 1.
    """
    numbers = (timesteps,) if isinstance(timesteps, int) else tuple(timesteps)
    check_counts("conversion.mean_outputs", timesteps=numbers)
    inputs = as_floating("conversion.mean_outputs", inputs)
    ends = tuple(sorted(set(numbers)))
    return dict(zip(ends, _means(net, statistics, inputs, ends), strict=True))


@functools.partial(jax.jit, static_argnums=3)
def _means(net, statistics, inputs, ends):
    state = net.initial_state(inputs.shape[0], statistics=statistics)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        neurons, total = carry
        outputs, aux = net(inputs[None], state._replace(neurons=neurons), training=False)
        return (aux.state, total + outputs[0]), None

    start = nn.contract.repeat_state(widen_to(state.neurons, inputs.dtype))
    outputs = jax.eval_shape(lambda: net(inputs[None], state, training=False)[0])
    carry, means, before = (start, jnp.zeros(outputs.shape[1:], outputs.dtype)), [], 0
    for end in ends:
        carry, _ = jax.lax.scan(step, carry, None, length=end - before)
        means.append(carry[1] / end)
        before = end
    return means


def accumulate(
    net: nn.Network,
    inputs: Array,
    timesteps: int | None,
    taps: tuple[str, ...],
    combine: Callable[[int, Array, Array], Array],
    *,
    reduced: bool = False,
) -> dict[str, dict[str, Array]]:
    """Folds taps over timesteps, `total <- combine(place, total, x[t])`, from zeros.

    Args:
        net: spiking network without batch norm.
        inputs: frames `[T, B, ...]`, or with `timesteps` one frame `[B, ...]` for all of them.
        timesteps: number of equal frames, or None.
        taps: kinds of arrays, see `nn.taps`.
        combine: `(place, total, x [B, ...]) -> total`; layers have the places 0, 1, ... in order.
        reduced: totals are numbers, not arrays of the shape of x.

    Returns:
        Totals by the names of the layers, in order, and by kind.
    """
    frame = inputs if timesteps is not None else inputs[0]
    state = net.initial_state(frame.shape[0])

    def run(neurons: Any, frame: Array) -> tuple[Any, dict[str, dict[str, Array]]]:
        given = state._replace(neurons=neurons)
        _, aux = net(frame[None], given, training=False, taps=taps)
        return aux.state, {n: {k: kinds[k][0] for k in taps} for n, kinds in aux.taps.items()}

    def step(carry: Any, frame: Array | None) -> tuple[Any, None]:
        neurons, totals = carry
        neurons, seen = run(neurons, inputs if frame is None else frame)
        folded = {
            name: {k: combine(place, totals[name][k], x) for k, x in kinds.items()}
            for place, (name, kinds) in enumerate(in_order(seen).items())
        }
        return (neurons, folded), None

    start = widen_to(state.neurons, inputs.dtype)
    shapes = jax.eval_shape(run, start, frame)[1]
    zeros = jax.tree.map(lambda s: jnp.zeros(() if reduced else s.shape, s.dtype), shapes)
    frames = None if timesteps is not None else inputs
    (_, totals), _ = jax.lax.scan(step, (start, zeros), frames, length=timesteps)
    # A dictionary comes out of a scan in alphabetical order.
    return in_order(totals)
