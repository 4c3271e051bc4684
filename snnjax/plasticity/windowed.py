"""Windowed, post-triggered STDP with a potentiation factor (FSpiNN).

Weights change once per window of timesteps, at its end:

    k = ceil(largest spike count of any neuron in this presentation / spikes_per_factor)
    neuron j fired in the window      w[:, j] += k eta_post pre (w_max - w[:, j])^mu
    neuron j was silent               w[:, j] -= eta_pre post[j] w[:, j]^mu

Presynaptic spikes alone change nothing. A neuron that has not fired in this presentation has
`post = 0` and is skipped, so a window costs as many columns as neurons have fired.

OUR RECONSTRUCTION: the abstract says that updates are fewer, timestep-based, and scaled by an
adaptive potentiation factor; the formulas follow citations and all constants are our own.

Reference: R. V. W. Putra, M. Shafique, "FSpiNN: An Optimization Framework for Memory- and
Energy-Efficient Spiking Neural Networks", 2020, arXiv:2007.08860.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from snnjax.plasticity._synapses import Format, count_updates, update_columns
from snnjax.plasticity.traces import nearest_neighbour, nearest_neighbour_list
from snnjax.plasticity.weight_dependence import Power, WeightDependence
from snnjax.typing import Array, Key

__all__ = ["WindowedParams", "WindowedSTDP", "potentiation_factor"]


class WindowedParams(NamedTuple):
    """Parameters of the windowed rule, scalars; decays are `exp(-dt / tau)`.

    Attributes:
        eta_pre: Depression of a silent neuron per window.
        eta_post: Potentiation of a firing neuron per window and unit of the factor.
        decay_pre: Decay of the presynaptic trace per timestep.
        decay_post: Decay of the postsynaptic trace per timestep.
        w_max: Upper bound of the weights.
    """

    eta_pre: float = 1e-4
    eta_post: float = 1e-2
    # exp(-1 / 20): a time constant of 20 timesteps.
    decay_pre: float = 0.9512294
    decay_post: float = 0.9512294
    w_max: float = 1.0


def potentiation_factor(counts: Array, spikes_per_factor: float) -> Array:
    """Potentiation factor `k = ceil(max(counts) / spikes_per_factor)`, an integer.

    It is 0 before the first spike of a presentation and at least 1 afterwards.

    Args:
        counts: Spikes of each neuron so far in this presentation, `[N]`.
        spikes_per_factor: Spike count per unit of the factor, above 0.
    """
    return jnp.ceil(counts.max() / spikes_per_factor)


class WindowedTraces(NamedTuple):
    """Traces of `WindowedSTDP`.

    Attributes:
        pre: Presynaptic trace, `[n]`.
        post: Postsynaptic trace, `[N]`.
        fired: Mask of the neurons that fired in this window, bool, `[N]`.
        counts: Spikes in this presentation, `[N]`.
        step: Timestep in this presentation, int32.
    """

    pre: Array
    post: Array
    fired: Array
    counts: Array
    step: Array


@dataclasses.dataclass(frozen=True)
class WindowedSTDP:
    """Windowed STDP on spike lists.

    Args:
        params: Learning rates, decays and upper bound.
        window: Timesteps per window; an incomplete last window changes nothing.
        spikes_per_factor: Spike count per unit of the potentiation factor; None is a factor of 1.
        dependence: Factors by which the weight scales its change.

    Raises:
        ValueError: `window` is below 1 or `spikes_per_factor` is not above 0.
    """

    params: WindowedParams = WindowedParams()
    window: int = 10
    spikes_per_factor: float | None = 4.0
    dependence: WeightDependence = Power(1.0)

    def __post_init__(self):
        if self.window < 1:
            raise ValueError(f"window is at least one timestep, got {self.window}")
        # `not >` instead of `<=`: NaN fails, too.
        if self.spikes_per_factor is not None and not self.spikes_per_factor > 0:
            raise ValueError(
                f"spikes_per_factor must be above 0, got {self.spikes_per_factor}: None is a "
                "factor of 1"
            )

    def initial_traces(self, inputs: int, neurons: int) -> WindowedTraces:
        """Zero traces of n inputs and N neurons."""
        return WindowedTraces(
            pre=jnp.zeros(inputs),
            post=jnp.zeros(neurons),
            fired=jnp.zeros(neurons, bool),
            counts=jnp.zeros(neurons),
            step=jnp.zeros((), jnp.int32),
        )

    def __call__(
        self,
        traces: WindowedTraces,
        weights: Array,
        active: Array,
        spikes: Array,
        *,
        form: Format | None,
        key: Key | None,
    ) -> tuple[WindowedTraces, Array, Array]:
        """Applies one timestep.

        Args:
            traces: Traces after the previous timestep.
            weights: Weights `[n, N]`, as stored.
            active: Indices of the firing inputs, `[slots]`, padded with n.
            spikes: Postsynaptic spikes, `[N]`, 0 or 1.
            form: Fixed-point format of the weights; None is float32.
            key: Random key of a format that rounds stochastically.

        Returns:
            The new traces, the new weights, and the number of updated weights.
        """
        params, (pre, post, fired, counts, step) = self.params, traces
        pre = nearest_neighbour_list(pre, active, params.decay_pre)
        post = nearest_neighbour(post, spikes, params.decay_post)
        # Counts include this timestep, so the factor is at least 1 where a neuron fired.
        fired, counts = fired | (spikes > 0), counts + spikes
        ends = (step + 1) % self.window == 0
        factor = 1.0
        if self.spikes_per_factor is not None:
            factor = potentiation_factor(counts, self.spikes_per_factor)

        def change(column, j):
            up = factor * params.eta_post * pre * self.dependence.up(column, params.w_max)
            down = params.eta_pre * post[j] * self.dependence.down(column, params.w_max)
            return jnp.clip(column + jnp.where(fired[j], up, -down), 0, params.w_max)

        # Columns that would not move are left out: writing a column costs time and counts as an
        # update, so a silent neuron is included only if its depression is not zero.
        mask = ends & (fired | ((post > 0) & (params.eta_pre > 0)))
        weights = update_columns(weights, mask, change, form=form, key=key)
        updates = count_updates(weights, None, mask)
        # `fired` restarts with each window; traces and counts last for the presentation.
        return WindowedTraces(pre, post, fired & ~ends, counts, step + 1), weights, updates
