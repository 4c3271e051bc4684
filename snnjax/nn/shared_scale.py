"""Synapses and LIF neurons on one learned scale, for inference in integer arithmetic.

    K[t] = sum of k(w) over inputs with a spike at t,   s[t] = integer LIF of K[t]

k(w) are integer codes of the weights. Equations, and their differences from the paper, are in
`quantization.shared_scale_lif`.

Reference: Yin, Moitra, Bhattacharjee, Kim, Panda, "MINT: Multiplier-less INTeger Quantization for
Energy Efficient Spiking Neural Networks", 2023, arXiv:2305.09850.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import memory
from snnjax.nn._checks import check_scan
from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, gather, place, replace
from snnjax.nn.mixed_precision import Precision
from snnjax.nn.neuron import run
from snnjax.nn.synapses import Fold
from snnjax.ops.arguments import as_floating, check_counts, check_numbers, shorten
from snnjax.ops.rounding import widen
from snnjax.quantization import QFormat
from snnjax.quantization import shared_scale_lif as rule
from snnjax.quantization.shared_scale_lif import initial_beta
from snnjax.quantization.words import Packed
from snnjax.surrogate import Surrogate, triangle
from snnjax.typing import Array, Scan, bind

__all__ = ["SharedScale"]


class SharedScale(nnx.Module):
    """A synapse and its LIF neurons, with weights and membrane on one learned scale.

        K[t] = synapse with codes k(w) on spikes x[t],   s[t] = LIF of integers, in steps beta / n

        nn.SharedScale(nn.Conv(16, 32, rngs=rngs), bits=4)

    Inputs `[T, B, ...]` and outputs `[T, B, ...]` are spikes; with real-valued inputs currents
    would not be integers. The released code keeps the first convolution and the last linear map,
    with real inputs or outputs, in full precision. A normalisation between synapse and neurons is
    not possible.

    Args:
        synapse: `nn.Conv` or `nn.Linear` without a bias.
        bits: bits of weights and membrane, 2 to 8.
        decay: fraction of the membrane kept per timestep; a power of two (1, 1/2, 1/4, ...) has an
            integer form.
        threshold: membrane potential at which a neuron fires.
        spike: spike function; the default has the slope `max(0, 1 - |v - threshold|)`.
        scan: memory strategy over time; a reversing one is refused, since rounding has no inverse.

    Raises:
        ValueError: the synapse has more than one array; an unsupported number of bits; a reversing
            scan.

    Reference:
        Yin, Moitra, Bhattacharjee, Kim, Panda, "MINT: Multiplier-less INTeger Quantization for
        Energy Efficient Spiking Neural Networks", 2023, arXiv:2305.09850.
    """

    def __init__(
        self,
        synapse: Fold,
        *,
        bits: int = 4,
        decay: float = 0.5,
        threshold: float = 0.5,
        spike: Surrogate = triangle(alpha=1.0),  # noqa: B008 (frozen)
        scan: Scan | None = None,
    ):
        check_counts("nn.SharedScale", least=2, bits=bits)
        check_numbers("nn.SharedScale", above=0, most=1, decay=decay)
        check_numbers("nn.SharedScale", above=0, threshold=threshold)
        check_scan("nn.SharedScale", scan)
        if not isinstance(synapse, Fold):
            raise TypeError(
                f"nn.SharedScale takes nn.Conv(...) or nn.Linear(..., use_bias=False), got "
                f"{shorten(synapse)}"
            )
        weights = jax.tree.leaves(synapse)
        if len(weights) != 1:
            raise ValueError(
                f"a shared scale needs a synapse with weights only, not with {len(weights)} "
                "arrays: use nn.Conv(...) or nn.Linear(..., use_bias=False)"
            )
        self.synapse, self.bits, self.name = synapse, bits, "shared_scale"
        self.decay, self.threshold = float(decay), float(threshold)
        self.step = bind(rule.shared_scale_lif, bits=bits, spike=spike)
        self.scan = _refuse_reversal(scan)
        # One scale for weights and membrane is what makes the step integer.
        self.beta = nnx.Param(initial_beta(weights[0], bits=bits))

    def params(self) -> rule.SharedScaleParams:
        """Parameters of the neurons' step; the scale is the absolute value of `beta`."""
        # A negative scale would swap the signs of all codes.
        return rule.SharedScaleParams(jnp.abs(self.beta[...]), self.decay, self.threshold)

    def codes(self) -> Array:
        """Integer codes of the weights, in float32 and in the shape of the weights."""
        (weights,) = jax.tree.leaves(self.synapse)
        return rule.shared_codes(weights, self.params().beta, bits=self.bits)

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest; `shape` is that of one timestep of spikes, `(B, ...)`."""
        spikes = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        run = lambda synapse, spikes: synapse(spikes, State(), Call(training=False))[0]  # noqa: E731
        currents = jax.eval_shape(run, self.synapse, spikes)
        at_rest = rule.SharedScaleState(jnp.zeros(currents.shape[1:], currents.dtype))
        return State(((), at_rest), ((), ()))

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Spikes `[T, B, ...]` to spikes `[T, B, ...]`.

        Taps of membranes and currents are in units of `beta / n`, the tap of the threshold in units
        of the membrane potential.
        """
        # Sums of codes are integers, which bfloat16 would round above 256.
        inputs = widen(as_floating("nn.SharedScale", inputs))
        structure = jax.tree.structure(self.synapse)
        # The synapse computes with codes; its own array stays the learned weights.
        synapse = jax.tree.unflatten(structure, [self.codes()])
        currents, below = synapse(inputs, State(), call)
        _, own = state.neurons
        spikes, aux = run(self.step, self.params(), own, currents, scan=self.scan, taps=call.taps)
        return spikes, gather([("synapse", below), ("lif", aux)])

    def with_precision(self, precision: Precision) -> SharedScale:
        """The layer itself: its integers are exact in float32 only."""
        del precision
        return self

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Applies the strategy over time to the neurons, and packing to the synapse.

        Raises:
            ValueError: a reversing strategy over time.
        """
        # The scale of the weights, shared with the threshold, has no trace.
        request = dataclasses.replace(request, traces=None)
        synapse = place(self.synapse, request.child(request.spiking))
        changed, scan = replace(self, synapse=synapse.layer), request.strategy.time
        if scan is None:
            return Placed(changed, True, synapse.taken)
        return Placed(replace(changed, scan=_refuse_reversal(scan)), True, synapse.taken | {"time"})

    def packed_codes(self) -> Packed:
        """Codes of the weights at `bits` bits each."""
        return Packed.from_values(self.codes(), QFormat(self.bits - 1, 0, signed=True))

    def integer_params(self) -> rule.IntegerParams:
        """Integer form of the neurons, for `quantization.shared_scale_lif.integer_lif`.

        Raises:
            ValueError: the decay is not a power of two.
        """
        # The largest possible current decides the width of the integer accumulator.
        sums = jnp.abs(self.codes()).reshape(-1, self.codes().shape[-1]).sum(0)
        return rule.integer_form(self.params(), bits=self.bits, largest=int(sums.max()))


def _refuse_reversal(scan: Any) -> Any:
    if isinstance(scan, memory.Reverse):
        raise ValueError(
            "neurons on a shared scale round their membrane, and rounding has no inverse: use "
            "memory.recompute(every)"
        )
    return scan
