"""Turned-off neurons: spikes without a memory.

    s = H(v - threshold),      ds/dv := spike.derivative(v - threshold)

A turned-off neuron fires on its input of this timestep and forgets it; only the few
turned-on neurons of a network carry a membrane from step to step. With the defaults it is
`floor(clip(v, 0, 1) + 0.5)`, spike iff `v >= 0.5`, with a gradient of 1 on [0, 1].

Reference: Hu, Yao, Qiu, Chou, Cai, Qiao, Tian, Xu, Li, "High-Performance Temporal Reversible
Spiking Neural Networks with O(L) Training Memory and O(1) Inference Cost", 2024, arXiv:2405.16466.
"""

from __future__ import annotations

from flax import nnx

from snnjax import surrogate
from snnjax.nn.contract import Aux, Call, State
from snnjax.nn.taps import neuron_taps
from snnjax.typing import Array

__all__ = ["Disabled"]


class Disabled(nnx.Module):
    """Stateless spikes, `[T, B, ...] -> [T, B, ...]`.

    The rule is the same in training and evaluation. The released T-RevSNN code fires at `v >= 0.5`
    in training and rounds half to even in evaluation, where `v = 0.5` then is no spike: the two
    differ there and nowhere else, and here they do not.

    Args:
        threshold: input at which a neuron fires.
        spike: the spike function of `input - threshold`; with the default threshold the default
            passes gradients where the input lies in [0, 1], ends included.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        spike: surrogate.Surrogate = surrogate.straight_through(),  # noqa: B008 (frozen)
    ):
        self.threshold, self.spike, self.name = threshold, spike, "turned_off"

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """No state."""
        del shape
        return State()

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Spikes, 0 or 1 in the dtype of the inputs."""
        spikes = self.spike(inputs - self.threshold)
        # Without a memory the membrane is the input; the layer itself has the field `threshold`.
        seen = neuron_taps(call.taps, spikes, currents=inputs, params=self, membrane=inputs)
        return spikes, Aux(taps={"": seen} if seen else {})
