"""Windowed, post-triggered STDP with a potentiation factor: FSpiNN's fewer and surer updates.

Spikes are counted over a window of timesteps, and weights change once, at its end:

    k = ceil(largest spike count of any neuron in this presentation / spikes_per_factor)
    neuron j fired in the window      w[:, j] += k eta_post pre (w_max - w[:, j])^mu
    it did not                        w[:, j] -= eta_pre post[j] w[:, j]^mu

Presynaptic spikes alone change nothing. A neuron that has not fired in this presentation has
`post = 0` and is left alone, so that a window costs as many columns as neurons have fired.

OUR RECONSTRUCTION: the abstract says that updates are fewer, timestep-based, and scaled by an
adaptive potentiation factor; the formulas are as others cite them and all constants are our own.

Reference: R. V. W. Putra, M. Shafique, "FSpiNN: An Optimization Framework for Memory- and
Energy-Efficient Spiking Neural Networks", 2020, arXiv:2007.08860.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from snnjax.plasticity.synapses import Format, update_columns, weights_touched
from snnjax.plasticity.traces import latest, latest_of_list
from snnjax.plasticity.weight_dependence import Power, WeightDependence
from snnjax.typing import Array, Key

__all__ = ["WindowedParams", "WindowedSTDP", "potentiation_factor"]


class WindowedParams(NamedTuple):
    """Parameters of the windowed rule, scalars; decays are `exp(-dt / tau)`.

    Attributes:
        eta_pre: depression of a silent neuron per window.
        eta_post: potentiation of a neuron that fired, per window and unit of the factor.
        decay_pre: of the presynaptic trace per timestep.
        decay_post: of the postsynaptic trace per timestep.
        w_max: upper bound of the weights.
    """

    eta_pre: float = 1e-4
    eta_post: float = 1e-2
    decay_pre: float = 0.9512294  # 20 steps
    decay_post: float = 0.9512294
    w_max: float = 1.0


def potentiation_factor(counts: Array, spikes_per_factor: float) -> Array:
    """`k = ceil(max(counts) / spikes_per_factor)`: a whole number, at least 1 once anyone fired.

    Args:
        counts: spikes of each neuron so far in this presentation, `[N]`.
        spikes_per_factor: the count that one unit stands for, above 0.
    """
    return jnp.ceil(counts.max() / spikes_per_factor)


class WindowedTraces(NamedTuple):
    """Traces `pre` `[n]`, `post` `[N]`; who `fired` in this window; `counts` so far; the `step`."""

    pre: Array
    post: Array
    fired: Array
    counts: Array
    step: Array


@dataclasses.dataclass(frozen=True)
class WindowedSTDP:
    """The windowed rule on lists of spikes.

    Args:
        params: Rates, decays and bound.
        window: Timesteps of a window; those of a last one that is cut short change nothing.
        spikes_per_factor: For the potentiation factor; None leaves the factor at 1.
        dependence: How the weight scales its change.

    Raises:
        ValueError: `window` is below 1 or `spikes_per_factor` not above 0.
    """

    params: WindowedParams = WindowedParams()
    window: int = 10
    spikes_per_factor: float | None = 4.0
    dependence: WeightDependence = Power(1.0)

    def __post_init__(self):
        if self.window < 1:
            raise ValueError(f"window is at least one timestep, got {self.window}")
        if self.spikes_per_factor is not None and not self.spikes_per_factor > 0:
            raise ValueError(
                f"spikes_per_factor must be above 0, got {self.spikes_per_factor}: None is a "
                "factor of 1"
            )

    def rest(self, inputs: int, neurons: int) -> WindowedTraces:
        """Traces before a presentation."""
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
        """One timestep: traces and weights after it, and how many weights it touched."""
        params, (pre, post, fired, counts, step) = self.params, traces
        pre = latest_of_list(pre, active, params.decay_pre)
        post = latest(post, spikes, params.decay_post)
        fired, counts = fired | (spikes > 0), counts + spikes
        ends = (step + 1) % self.window == 0
        factor = 1.0
        if self.spikes_per_factor is not None:
            factor = potentiation_factor(counts, self.spikes_per_factor)

        def change(column, j):
            up = factor * params.eta_post * pre * self.dependence.up(column, params.w_max)
            down = params.eta_pre * post[j] * self.dependence.down(column, params.w_max)
            return jnp.clip(column + jnp.where(fired[j], up, -down), 0, params.w_max)

        learning = ends & (fired | ((post > 0) & (params.eta_pre > 0)))
        weights = update_columns(weights, learning, change, form=form, key=key)
        touched = weights_touched(weights, None, learning)
        return WindowedTraces(pre, post, fired & ~ends, counts, step + 1), weights, touched
