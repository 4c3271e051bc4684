"""Causal neurons computed in parallel over time, for windows of any length and for streams.

    nn.SlidingPSN(order=k)          weighs the last k timesteps with learned weights
    nn.ResetFreeLIF(decay=0.5)      weighs all past timesteps, with exponential decay

In `order="layer"` all timesteps are computed at once. In `order="time"` they are computed one by
one, and the state carries the last `k - 1` currents, or the membrane.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx

from snnjax import metrics, neurons
from snnjax.nn._checks import check_scan, check_state
from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, replace
from snnjax.nn.neuron import Neuron
from snnjax.nn.neuron_models import LIF
from snnjax.nn.parallel_neurons import products_over_time, refuse_time
from snnjax.nn.taps import lazy_taps, neuron_taps
from snnjax.ops.arguments import as_floating, check_counts
from snnjax.ops.rounding import widen, widen_to
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array, Scan, bind

__all__ = ["ResetFreeLIF", "SlidingPSN"]


class SlidingPSN(nnx.Module):
    """Sliding parallel spiking neurons with `order` weights, the same at all timesteps.

        H[t] = sum over i < k of w[i] X[t-k+1+i],    S[t] = [H[t] >= B]

    Currents X `[T, B, ...]` in units of the membrane potential; spikes S `[T, B, ...]`, 0 or 1.
    The layer is causal and takes any number of timesteps, also as a stream: its state holds the
    last k - 1 currents. The initial values of the k + 1 parameters are those of spikingjelly,
    weights `(.., 1/4, 1/2, 1)` and threshold 1.

    Args:
        order: `k`, number of weighed timesteps, at least 1.
        spike: spike function and its surrogate derivative.
        scan: memory strategy over time; None for all timesteps at once, with the same values.

    Raises:
        ValueError: an order below 1; a reversing scan, since currents that leave the window are
            discarded.

    Reference:
        Fang, Yu, Zhou, Chen, Chen, Ma, Masquelier, Tian, "Parallel Spiking Neurons with High
        Efficiency and Ability to Learn Long-term Dependencies", NeurIPS 2023, arXiv:2304.12760.
    """

    def __init__(self, *, order: int, spike: Surrogate = arctan(), scan: Scan | None = None):
        check_counts("nn.SlidingPSN", order=order)
        check_scan("nn.SlidingPSN", scan)
        self.order, self.name, self.spiking = order, "sliding_psn", True
        model = neurons.psn.sliding_psn_model(order=order, spike=spike)
        self.neuron = Neuron(model, scan=scan, learn=("weights", "threshold"))

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """State at rest: past currents are 0."""
        return self.neuron.initial_state(shape)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Maps currents `[T, B, ...]` to spikes `[T, B, ...]`, in the dtype of the currents.

        Taps: those of neurons (`nn.taps`), and `"products"`.
        """
        spikes, aux = self.neuron(inputs, state, call)
        taps = lazy_taps(call.taps, products=lambda: self._products(inputs, state.neurons.inputs))
        kinds = aux.taps.get("", {}) | taps.get("", {})
        return spikes, aux._replace(taps={"": kinds} if kinds else {})

    def _products(self, inputs: Array, before: Array) -> metrics.operations.Products:
        """Multiplications of the banded matrix whose row t holds the weights from column t on."""
        # Row t weighs currents of earlier calls, too.
        currents = jnp.concatenate([before, widen(inputs)])
        # Column s of row t is weight s - t of the window.
        place = jnp.arange(len(currents))[None, :] - jnp.arange(len(inputs))[:, None]
        inside = (place >= 0) & (place < self.order)
        used = (self.neuron.params().weights != 0)[jnp.clip(place, 0, self.order - 1)]
        return products_over_time(inside, inside & used, currents)

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Applies the strategy over time to the neurons' scan.

        Raises:
            ValueError: a reversing strategy.
        """
        neuron = self.neuron.with_memory(request)
        return Placed(replace(self, neuron=neuron.layer), True, neuron.taken)


class ResetFreeLIF(nnx.Module):
    """LIF neurons without a reset, computed by an associative scan over time.

        h[t] = decay * h[t-1] + g * x[t],    s[t] = [h[t] >= threshold]

    with `g = 1`, or `1 - decay` with `scale_input`. Currents x `[T, B, ...]` in units of the
    membrane potential per timestep; spikes s `[T, B, ...]`, 0 or 1. The neuron equals
    `nn.LIF(reset=neurons.reset.none)` up to the grouping of sums: membranes agree to rounding,
    between the two layers and between a stream and a window. Causal, for any number of timesteps.

    Args:
        decay: fraction of the membrane potential kept per timestep, in (0, 1].
        threshold: membrane potential at which a neuron fires.
        spike: spike function and its surrogate derivative.
        scale_input: charge with `(1 - decay) * x`.
        learn: names of the parameters to learn, `"decay"` or `"threshold"`. A learned decay is not
            kept inside (0, 1].

    Raises:
        ValueError: `learn` names an unknown parameter; a strategy over time.

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
        self.sequence = bind(neurons.reset_free.reset_free_lif_scan, **options)
        # The sequential twin holds parameters and state; its scan is never run.
        self.neuron = LIF(
            decay=decay, threshold=threshold, learn=learn, reset=neurons.reset.none, **options
        )
        self.scale_input, self.name, self.spiking = scale_input, "reset_free_lif", True

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest, one per element of `shape`."""
        return self.neuron.initial_state(shape)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Maps currents `[T, B, ...]` to spikes `[T, B, ...]`, in the dtype of the currents."""
        inputs = as_floating("nn.ResetFreeLIF", inputs)
        check_state(self.neuron.initial_state, state, inputs.shape[1:])
        currents = widen(inputs)
        params, start = widen_to((self.neuron.params(), state.neurons), currents.dtype)
        after, spikes = self.sequence(params, start, currents)
        spikes, membrane = spikes.astype(inputs.dtype), None
        if "membrane" in call.taps:
            gain = 1 - params.decay if self.scale_input else 1
            # The scan returns the last membrane only; the tap needs all of them.
            membrane = neurons.reset_free.linear_recurrence(params.decay, start.v, gain * currents)
        taps = neuron_taps(call.taps, spikes, currents=inputs, params=params, membrane=membrane)
        return spikes, Aux(after, (), {"": taps} if taps else {})

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Uses no part of the strategy; outputs are spikes.

        Raises:
            ValueError: a strategy over time.
        """
        refuse_time(request.strategy, "nn.ResetFreeLIF", "nn.LIF(reset=neurons.reset.none)")
        return Placed(self, True)
