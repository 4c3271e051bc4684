"""Synapses and their neurons on one learned scale: integer arithmetic in a trained network.

    K[t] = sum of k(w) over the inputs that spiked,   s[t] = LIF of whole numbers

Equations, and their differences from the paper: `quantization.shared_scale_lif`.

Reference: Yin, Moitra, Bhattacharjee, Kim, Panda, "MINT: Multiplier-less INTeger Quantization for
Energy Efficient Spiking Neural Networks", 2023, arXiv:2305.09850.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import memory
from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, place, replace
from snnjax.nn.mixed_precision import Precision
from snnjax.nn.neuron import run
from snnjax.nn.synapses import Fold
from snnjax.nn.wiring import gather
from snnjax.ops.rounding import widen
from snnjax.quantization import QFormat
from snnjax.quantization import shared_scale_lif as rule
from snnjax.quantization.shared_scale_lif import initial_beta
from snnjax.quantization.words import Packed
from snnjax.surrogate import Surrogate, triangle
from snnjax.typing import Array, Scan, bind

__all__ = ["SharedScale"]


class SharedScale(nnx.Module):
    """A synapse and its LIF neurons with weights and membrane on one scale, learned.

        nn.SharedScale(nn.Conv(16, 32, rngs=rngs), bits=4)

    Inputs are spikes: of real numbers a current would be no whole number. The released code leaves
    the first convolution and the last linear map in full precision, where inputs are real numbers
    and outputs are no spikes. There is no room for a normalisation between the two.

    Args:
        synapse: `nn.Conv` or `nn.Linear` without a bias.
        bits: of weights and membrane, 2 to 8.
        decay: of the membrane per timestep; a power of two (1, 1/2, 1/4, ...) has an integer form.
        threshold: membrane potential at which a neuron fires.
        spike: the spike function; the default's slope is `max(0, 1 - |v - threshold|)`.
        scan: the memory strategy over time; the rounding has no inverse, so none that reverses.

    Raises:
        ValueError: the synapse holds more than its weights; another number of bits; a scan that
            reverses.
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
        weights = jax.tree.leaves(synapse)
        if len(weights) != 1:
            raise ValueError(
                f"a shared scale is for weights alone, and this synapse holds {len(weights)} "
                "arrays: nn.Conv(...) or nn.Linear(..., use_bias=False)"
            )
        self.synapse, self.bits, self.name = synapse, bits, "shared_scale"
        self.decay, self.threshold = float(decay), float(threshold)
        self.step = bind(rule.shared_scale_lif, bits=bits, spike=spike)
        self.scan = _refuse_reversal(scan)
        self.beta = nnx.Param(initial_beta(weights[0], bits=bits))

    def params(self) -> rule.SharedScaleParams:
        """The parameters of the neurons' step; the sign of the learned scale does not matter."""
        return rule.SharedScaleParams(jnp.abs(self.beta[...]), self.decay, self.threshold)

    def codes(self) -> Array:
        """Codes of the weights, whole numbers in float32, in the shape of the weights."""
        (weights,) = jax.tree.leaves(self.synapse)
        return rule.shared_codes(weights, self.params().beta, bits=self.bits)

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest, for spikes whose timesteps have this shape."""
        spikes = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        run = lambda synapse, spikes: synapse(spikes, State(), Call(training=False))[0]  # noqa: E731
        currents = jax.eval_shape(run, self.synapse, spikes)
        at_rest = rule.SharedScaleState(jnp.zeros(currents.shape[1:], currents.dtype))
        return State(((), at_rest), ((), ()))

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Spikes `[T, B, ...]` to spikes `[T, B, ...]`.

        Taps of membranes and currents are in steps, `beta / n`; that of the threshold is not.
        """
        inputs = widen(inputs)  # sums of codes are whole numbers, and would not be in bfloat16
        structure = jax.tree.structure(self.synapse)
        synapse = jax.tree.unflatten(structure, [self.codes()])
        currents, below = synapse(inputs, State(), call)
        _, own = state.neurons
        spikes, aux = run(self.step, self.params(), own, currents, scan=self.scan, taps=call.taps)
        return spikes, gather([("synapse", below), ("lif", aux)])

    def with_precision(self, precision: Precision) -> SharedScale:
        """The layer itself: its whole numbers are exact in float32 only."""
        del precision
        return self

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Scans the neurons by the strategy over time, and packs the inputs of the synapse.

        Raises:
            ValueError: the strategy over time reverses.
        """
        synapse = place(self.synapse, request.child(request.spiking))
        changed, scan = replace(self, synapse=synapse.layer), request.strategy.time
        if scan is None:
            return Placed(changed, True, synapse.taken)
        return Placed(replace(changed, scan=_refuse_reversal(scan)), True, synapse.taken | {"time"})

    def packed_codes(self) -> Packed:
        """The codes of the weights at `bits` bits each."""
        return Packed.from_values(self.codes(), QFormat(self.bits - 1, 0, signed=True))

    def integer_params(self) -> rule.IntegerParams:
        """Integer form of the neurons, for `quantization.shared_scale_lif.integer_lif`.

        Raises:
            ValueError: the decay is no power of two.
        """
        sums = jnp.abs(self.codes()).reshape(-1, self.codes().shape[-1]).sum(0)
        return rule.integer_form(self.params(), bits=self.bits, largest=int(sums.max()))


def _refuse_reversal(scan: Any) -> Any:
    if isinstance(scan, memory.Reverse):
        raise ValueError(
            "neurons on a shared scale round their membrane, which has no inverse: use "
            "memory.recompute(every)"
        )
    return scan
