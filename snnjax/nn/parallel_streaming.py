"""Causal neurons that are parallel over time, as layers: windows of any length, and streams.

    nn.SlidingPSN(order=k)          weighs the last k timesteps with learned weights
    nn.ResetFreeLIF(decay=0.5)      weighs all past timesteps, exponentially less with their age

In training all timesteps arrive at once; in `order="time"` they arrive one by one, and the layer
carries the last `k - 1` currents, or the membrane.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx

from snnjax import metrics, neurons
from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, replace
from snnjax.nn.neuron import Neuron
from snnjax.nn.neuron_models import LIF
from snnjax.nn.parallel_neurons import products_over_time, refuse_time
from snnjax.nn.taps import lazy_taps, neuron_taps
from snnjax.ops.rounding import widen
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array, Scan, bind

__all__ = ["ResetFreeLIF", "SlidingPSN"]


class SlidingPSN(nnx.Module):
    """Sliding parallel spiking neurons with `order` weights, the same at all timesteps.

        H[t] = sum over i < k of w[i] X[t-k+1+i],    S[t] = [H[t] >= B]

    Currents X `[T, B, ...]` in units of the membrane potential; spikes S `[T, B, ...]`, 0 or 1.
    Causal, for any number of timesteps and for streams: the state holds the last `order - 1`
    currents. The `order + 1` parameters start as in spikingjelly, weights at `(.., 1/4, 1/2, 1)`
    and the threshold B at 1.

    Args:
        order: `k`, number of timesteps in the window, at least 1.
        spike: spike function and its surrogate derivative.
        scan: the memory strategy over time; None for all timesteps at once. Values are the same.

    Raises:
        ValueError: an order below 1; a scan that reverses: currents that leave the window are
            discarded.

    Reference:
        Fang, Yu, Zhou, Chen, Chen, Ma, Masquelier, Tian, "Parallel Spiking Neurons with High
        Efficiency and Ability to Learn Long-term Dependencies", NeurIPS 2023, arXiv:2304.12760.
    """

    def __init__(self, *, order: int, spike: Surrogate = arctan(), scan: Scan | None = None):
        if order < 1:
            raise ValueError(f"a sliding PSN looks at one timestep at least, got order={order}")
        self.order, self.name, self.spiking = order, "sliding_psn", True
        model = neurons.sliding_psn_model(order=order, spike=spike)
        self.neuron = Neuron(model, scan=scan, learn=("weights", "threshold"))

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """The state at rest, past currents 0."""
        return self.neuron.initial_state(shape)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Currents `[T, B, ...]` to spikes `[T, B, ...]`, in the dtype of the currents.

        Taps: those of neurons (`nn.taps`), and `"products"`.
        """
        spikes, aux = self.neuron(inputs, state, call)
        taps = lazy_taps(call.taps, products=lambda: self._products(inputs, state.neurons.inputs))
        kinds = aux.taps.get("", {}) | taps.get("", {})
        return spikes, aux._replace(taps={"": kinds} if kinds else {})

    def _products(self, inputs: Array, before: Array) -> metrics.operations.Products:
        """Products of the banded matrix whose row t has the weights from column t on."""
        currents = jnp.concatenate([before, widen(inputs)])
        place = jnp.arange(len(currents))[None, :] - jnp.arange(len(inputs))[:, None]
        inside = (place >= 0) & (place < self.order)
        used = (self.neuron.params().weights != 0)[jnp.clip(place, 0, self.order - 1)]
        return products_over_time(inside, inside & used, currents)

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Scans the neurons by the strategy over time.

        Raises:
            ValueError: the strategy reverses.
        """
        neuron = self.neuron.with_memory(request)
        return Placed(replace(self, neuron=neuron.layer), True, neuron.taken)


class ResetFreeLIF(nnx.Module):
    """LIF neurons without a reset, by a prefix sum over time.

        h[t] = decay * h[t-1] + g * x[t],    s[t] = [h[t] >= threshold]

    with `g = 1`, or `1 - decay` with `scale_input`. Currents x `[T, B, ...]` in units of the
    membrane potential per timestep; spikes s `[T, B, ...]`, 0 or 1. The neuron is
    `nn.LIF(reset=neurons.none)` with differently grouped sums: membranes agree to rounding, and so
    do those of a stream with those of the window. Causal, for any number of timesteps.

    Args:
        decay: fraction of the membrane potential kept per timestep, in (0, 1].
        threshold: membrane potential at which a neuron fires.
        spike: spike function and its surrogate derivative.
        scale_input: charge with `(1 - decay) * x`.
        learn: names of the parameters to learn, of `"decay"` and `"threshold"`. The decay is not
            kept inside (0, 1].

    Raises:
        ValueError: `learn` names another parameter; a strategy over time.

    Reference:
        Martin, Cundy, "Parallelizing Linear Recurrent Neural Nets Over Sequence Length", 2018,
        arXiv:1709.04057.
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
        self.sequence = bind(neurons.reset_free_lif_scan, **options)
        self.neuron = LIF(
            decay=decay, threshold=threshold, learn=learn, reset=neurons.none, **options
        )
        self.scale_input, self.name, self.spiking = scale_input, "reset_free_lif", True

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest, one per element of `shape`."""
        return self.neuron.initial_state(shape)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Currents `[T, B, ...]` to spikes `[T, B, ...]`, in the dtype of the currents."""
        params, currents = self.neuron.params(), widen(inputs)
        after, spikes = self.sequence(params, state.neurons, currents)
        spikes, membrane = spikes.astype(inputs.dtype), None
        if "membrane" in call.taps:
            gain = 1 - params.decay if self.scale_input else 1
            membrane = neurons.linear_recurrence(params.decay, state.neurons.v, gain * currents)
        taps = neuron_taps(call.taps, spikes, currents=inputs, params=params, membrane=membrane)
        return spikes, Aux(after, (), {"": taps} if taps else {})

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Takes nothing; its outputs are spikes.

        Raises:
            ValueError: a strategy over time.
        """
        refuse_time(request.strategy, "nn.ResetFreeLIF", "nn.LIF(reset=neurons.none)")
        return Placed(self, True)
