"""Synaptic currents behind a gate, coded as multi-bit spikes: improved recurrence dynamics.

    "leaky"   i[t] = tau i[t-1] + m x[t]                                            the baseline
    "v1"      i[t] = F i[t-1] + (1 - F) m C,   F = sigmoid(f[t]),   C = relu(c[t])
    "v2"      as v1 of f[t] + y[t-1] U_f and c[t] + y[t-1] U_c

    then the sigma-delta coder, u[t] = v[t-1] + i[t],  y[t] = Q(u[t]),  v[t] = u[t] - y[t]

`f` and `c` are the halves of the input, gate first; `m` is a mask of dropout, the same at all
timesteps. The gradient of `i` reaches k steps back by a product of k gates, which training can hold
near 1, where that of a decay vanishes. The currents of "leaky" and "v1" are linear in `i`, so
`integrator_sequence` computes them at all timesteps by an associative scan; only the coder, which
is cheap, remains sequential.

Reference: Ponghiran and Roy, "Spiking Neural Networks with Improved Inherent Recurrence Dynamics
for Sequential Learning", AAAI 2022, arXiv:2109.01905.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.neurons.model import Model, Parameter, Refusal
from snnjax.neurons.reset_free import gated_recurrence
from snnjax.neurons.sigma_delta import (
    Coder,
    CoderParams,
    CoderState,
    Range,
    coder_state,
    sigma_delta,
)
from snnjax.ops.arguments import check_choice
from snnjax.typing import Array, bind

__all__ = [
    "CELLS",
    "IntegratorParams",
    "IntegratorState",
    "integrator",
    "integrator_model",
    "integrator_sequence",
    "integrator_state",
]

CELLS = ("leaky", "v1", "v2")


class IntegratorParams(NamedTuple):
    """Parameters of `integrator`.

    Attributes:
        weights: decay tau `[N]` of "leaky"; feedback `[N, 2N]` of "v2", `U_f` then `U_c`; unused,
            0, in "v1".
        mask: mask of dropout, `[B, N]` or 1.
        low: of the range before the sequence, see `sigma_delta.Range`.
        high: of the range before the sequence.
        count: of the range before the sequence.
        lengths: valid timesteps, see `sigma_delta.CoderParams`.
    """

    weights: Parameter
    mask: Parameter = 1.0
    low: Parameter = 0.0
    high: Parameter = 0.0
    count: Parameter = 0.0
    lengths: Array | None = None


class IntegratorState(NamedTuple):
    """State of `integrator`, each `[B, N]` but the range.

    Attributes:
        v: error of the code.
        i: synaptic current.
        outputs: outputs of the last step, which "v2" feeds back.
        range: range since the start of the sequence.
    """

    v: Array
    i: Array
    outputs: Array
    range: Range


def integrator_state(
    shape: tuple[int, ...], *, cell: str = "v2", dtype=jnp.float32
) -> IntegratorState:
    """The state at rest for inputs of shape `(B, 2N)`, or `(B, N)` for "leaky"."""
    if cell != "leaky":
        shape = (*shape[:-1], _half(shape[-1]))
    rest = coder_state(shape, dtype=dtype)
    return IntegratorState(rest.v, rest.v, rest.v, rest.range)


def _half(width: int) -> int:
    if width % 2:
        raise ValueError(
            f"a gated integrator of N neurons takes 2N currents, gate and candidate, got {width}: "
            "put nn.Linear(inputs, 2 * N, rngs=rngs) in front of it"
        )
    return width // 2


def _affine(
    params: IntegratorParams, outputs: Array, x: Array, *, cell: str
) -> tuple[Array, Array]:
    """Factor and summand of the current, `i <- factor i + summand`."""
    if cell == "leaky":
        return jnp.asarray(params.weights), params.mask * x
    if cell == "v2":
        x = x + outputs @ params.weights
    gate, candidate = jnp.split(x, 2, axis=-1)
    keep = jax.nn.sigmoid(gate)
    # sigmoid(-f): 1 - sigmoid(f) would cancel to 0 for a large f.
    return keep, jax.nn.sigmoid(-gate) * params.mask * jax.nn.relu(candidate)


def integrator(
    params: IntegratorParams,
    state: IntegratorState,
    x: Array,
    *,
    cell: str,
    coder: Coder,
    training: bool = False,
) -> tuple[IntegratorState, Array]:
    """One timestep of a coded integrator; see the top of this module.

    Args:
        params: decay or feedback, mask of dropout, range before the sequence.
        state: error of the code, current, last outputs and range.
        x: `[B, 2N]`, gate then candidate; `[B, N]` for "leaky".
        cell: "leaky", "v1" or "v2".
        coder: bits, threshold and momentum of the coder.
        training: move the range of the coder.

    Returns:
        The new state and the multi-bit spikes, `[B, N]`, in the unit of the current.

    Reference:
        Ponghiran and Roy, "Spiking Neural Networks with Improved Inherent Recurrence Dynamics for
        Sequential Learning", AAAI 2022, arXiv:2109.01905.
    """
    keep, new = _affine(params, state.outputs, x, cell=cell)
    current = keep * state.i + new
    rest, y = _code(params, state, current, coder=coder, training=training)
    return IntegratorState(rest.v, current, y, rest.range), y


def _code(params, state, current, *, coder, training):
    before = CoderParams(params.low, params.high, params.count, params.lengths)
    return sigma_delta(
        before, CoderState(state.v, state.range), current, coder=coder, training=training
    )


def integrator_sequence(
    params: IntegratorParams,
    state: IntegratorState,
    xs: Array,
    *,
    cell: str,
    coder: Coder,
    training: bool = False,
) -> tuple[IntegratorState, Array]:
    """Whole sequence of `integrator` without feedback: currents by an associative scan.

    Equal to the scanned step up to rounding of the currents, which may move a code at its edge. The
    derivative keeps several arrays of the size of the currents.

    Args:
        params: as for `integrator`.
        state: as for `integrator`.
        xs: `[T, B, 2N]`, or `[T, B, N]` for "leaky".
        cell: "leaky" or "v1".
        coder: as for `integrator`.
        training: as for `integrator`.

    Returns:
        The state after the last step and the multi-bit spikes, `[T, B, N]`.
    """
    if not len(xs):
        return state, jnp.zeros((0, *state.v.shape), xs.dtype)
    keep, new = _affine(params, state.outputs, xs, cell=cell)
    currents = gated_recurrence(jnp.broadcast_to(keep, new.shape), state.i, new)

    def step(rest, current):
        return _code(params, rest, current, coder=coder, training=training)

    rest, ys = lax.scan(step, CoderState(state.v, state.range), currents)
    return IntegratorState(rest.v, currents[-1], ys[-1], rest.range), ys


_NO_INVERSE = Refusal(
    "an integrator with a coder has no inverse, since a gate near 0 forgets the current and the "
    "codes of the step before are unknown backwards: use memory.recompute(every)"
)


def integrator_model(
    *,
    weights: Parameter,
    cell: str = "v2",
    coder: Coder = Coder(),  # noqa: B008 (frozen)
    parallel: bool = False,
    training: bool = False,
    **options: Any,
) -> Model:
    """Model of a coded integrator, `[T, B, 2N] -> [T, B, N]`; `nn.Integrator` is its layer.

        i[t] = F i[t-1] + (1 - F) m C,    y[t] = Q(v[t-1] + i[t]),    v[t] = v[t-1] + i[t] - y[t]

    Args:
        weights: decay of "leaky", feedback `[N, 2N]` of "v2", 0 for "v1".
        cell: "leaky", "v1" or "v2".
        coder: bits, threshold and momentum of the coder.
        parallel: compute currents by an associative scan; not for "v2".
        training: move the range of the coder.
        **options: other fields of `IntegratorParams`.

    Raises:
        ValueError: an unknown cell; a parallel scan of "v2", whose currents depend on its outputs.

    Reference:
        Ponghiran and Roy, "Spiking Neural Networks with Improved Inherent Recurrence Dynamics for
        Sequential Learning", AAAI 2022, arXiv:2109.01905.
    """
    check_choice("integrator_model", choices=CELLS, cell=cell)
    if parallel and cell == "v2":
        raise ValueError(
            "the currents of v2 depend on its outputs of the step before, so no scan is parallel "
            'over time: use cell="v1", or parallel=False'
        )
    bound = {"cell": cell, "coder": coder, "training": training}
    return Model(
        bind(integrator, **bound),
        IntegratorParams(weights, **options),
        bind(integrator_state, cell=cell),
        bind(integrator_sequence, **bound) if parallel else None,
        inverse=_NO_INVERSE,
        spiking=False,
        name=f"{cell}_integrator",
    )
