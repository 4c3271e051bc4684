"""Neurons that are parallel in time and causal, as layers: windows of any length, and streams.

    nn.SlidingPSN(order=k)          the last k timesteps, with learned weights
    nn.ResetFreeLIF(decay=0.5)      all of the past, ever less

Equations and references: `neurons.psn` and `neurons.reset_free`. In training all timesteps come at
once; in `order="time"`, one by one, the layer carries the last `k - 1` currents, or the membrane.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from snnjax import metrics, neurons
from snnjax.memory import Strategy
from snnjax.nn.contract import Aux, State, replace
from snnjax.nn.neuron import Neuron
from snnjax.nn.neuron_models import LIF
from snnjax.nn.parallel_neurons import products_over_time, refuse_time
from snnjax.nn.taps import counted, tapped
from snnjax.ops.rounding import widen
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array, Key, Scan, bind

__all__ = ["ResetFreeLIF", "SlidingPSN"]


class SlidingPSN(nnx.Module):
    """Parallel spiking neurons with `order` weights, the same at all timesteps.

    Causal, of any length, and streaming: the state holds the last `order - 1` currents. Weights
    start at `(.., 1/4, 1/2, 1)` and the threshold at 1, as in spikingjelly; `order + 1` parameters.

    Args:
        order: `k`, at least 1.
        spike: the spike function.
        scan: the memory strategy over time; None for all timesteps at once. Values are the same.

    Raises:
        ValueError: an order below 1; a scan that reverses: what leaves the window is forgotten.
    """

    def __init__(self, *, order: int, spike: Surrogate = arctan(), scan: Scan | None = None):
        if order < 1:
            raise ValueError(f"a sliding PSN looks at one timestep at least, got order={order}")
        weights: Any = neurons.sliding_weights(order)
        threshold: Any = 1.0
        self.order, self.name, self.spiking = order, "sliding_psn", True
        self.neuron = Neuron(
            bind(neurons.sliding_psn, spike=spike),
            bind(neurons.sliding_psn_state, order=order),
            neurons.SlidingPSNParams(weights, threshold),
            whole=bind(neurons.sliding_psn_scan, spike=spike),
            scan=scan,
            learn=("weights", "threshold"),
            name=self.name,
            spiking=True,
        )

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """No current so far."""
        return self.neuron.initial_state(shape)

    def __call__(
        self,
        inputs: Array,
        state: State,
        *,
        training: bool,
        key: Key | None = None,
        taps: tuple[str, ...] = (),
    ) -> tuple[Array, Aux]:
        """Currents `[T, B, ...]` to spikes `[T, B, ...]`, in the dtype of the currents.

        Taps: those of neurons (`nn.taps`), and `"products"`.
        """
        spikes, aux = self.neuron(inputs, state, training=training, key=key, taps=taps)
        seen = counted(taps, products=lambda: self._products(inputs, state.neurons.inputs))
        kinds = aux.taps.get("", {}) | seen.get("", {})
        return spikes, aux._replace(taps={"": kinds} if kinds else {})

    def _products(self, inputs: Array, before: Array) -> metrics.operations.Products:
        """Row t of the banded matrix has the weights from column t on."""
        currents = jnp.concatenate([before, widen(inputs)])
        place = jnp.arange(len(currents))[None, :] - jnp.arange(len(inputs))[:, None]
        inside = (place >= 0) & (place < self.order)
        used = (self.neuron.params().weights != 0)[jnp.clip(place, 0, self.order - 1)]
        return products_over_time(inside, inside & used, currents)

    def with_memory(self, strategy: Strategy, spikes: bool) -> tuple[SlidingPSN, bool]:
        """The same layer with the strategy over time, and that its outputs are spikes.

        Raises:
            ValueError: it reverses.
        """
        del spikes
        if strategy.time is None:
            return self, True
        neuron = replace(self.neuron, scan=self.neuron.resolve(strategy.time))
        return replace(self, neuron=neuron), True


class ResetFreeLIF(nnx.Module):
    """LIF neurons without a reset, by a prefix sum over time.

    The neuron is `nn.LIF(reset=neurons.none)`, whose sums are grouped otherwise: membranes agree to
    rounding, and so do those of a stream, step by step, with those of the window. Causal, of any
    length.

    Args:
        decay: as for `nn.LIF`, and the following.
        threshold: membrane potential at which a neuron fires.
        spike: the spike function.
        scale_input: charge with `(1 - decay) * x`.
        learn: names of the parameters to learn, of `"decay"` and `"threshold"`. The decay is not
            kept inside (0, 1].

    Raises:
        ValueError: `learn` names something else; a strategy over time.
    """

    def __init__(
        self,
        *,
        decay: float | Array = 0.5,
        threshold: float | Array = 1.0,
        spike: Surrogate = arctan(),
        scale_input: bool = False,
        learn: tuple[str, ...] = (),
    ):
        options = {"spike": spike, "scale_input": scale_input}
        self.whole = bind(neurons.reset_free_lif_scan, **options)
        self.neuron = LIF(
            decay=decay, threshold=threshold, learn=learn, reset=neurons.none, **options
        )
        self.scale_input, self.name, self.spiking = scale_input, "reset_free_lif", True

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest, one per element of `shape`."""
        return self.neuron.initial_state(shape)

    def __call__(
        self,
        inputs: Array,
        state: State,
        *,
        training: bool,
        key: Key | None = None,
        taps: tuple[str, ...] = (),
    ) -> tuple[Array, Aux]:
        """Currents `[T, B, ...]` to spikes `[T, B, ...]`, in the dtype of the currents."""
        del training, key
        params, currents = self.neuron.params(), widen(inputs)
        after, spikes = self.whole(params, state.neurons, currents)
        spikes, membrane = spikes.astype(inputs.dtype), None
        if "membrane" in taps:
            gain = 1 - params.decay if self.scale_input else 1
            membrane = neurons.linear_recurrence(params.decay, state.neurons.v, gain * currents)
        seen = tapped(taps, spikes, currents=inputs, params=params, membrane=membrane)
        return spikes, Aux(after, (), {"": seen} if seen else {})

    def with_memory(self, strategy: Strategy, spikes: bool) -> tuple[ResetFreeLIF, bool]:
        """Itself, and that its outputs are spikes.

        Raises:
            ValueError: a strategy over time.
        """
        del spikes
        refuse_time(strategy, "nn.ResetFreeLIF", "nn.LIF(reset=neurons.none)")
        return self, True
