"""The models of `snnjax.neurons` as layers, one line each.

    nn.LIF(decay=0.9, scan=scan, learn=("decay",))

is `nn.Neuron(neurons.lif_model(decay=0.9), scan=scan, learn=("decay",))`. `Disabled` has no model:
it keeps no membrane.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from flax import nnx

from snnjax import neurons, surrogate
from snnjax.neurons import Model
from snnjax.nn.contract import Aux, Call, State, no_state
from snnjax.nn.neuron import Neuron
from snnjax.nn.taps import neuron_taps
from snnjax.ops.arguments import as_floating, check_numbers
from snnjax.typing import Array, Scan

__all__ = [
    "ALIF",
    "AdEx",
    "CoupledLIF",
    "CubaLIF",
    "Disabled",
    "IF",
    "Izhikevich",
    "LI",
    "LIF",
    "PLIF",
    "PSP",
    "SRM",
]

_OPTIONS = """\
Args:
    scan: memory strategy over time, such as `memory.recompute(8)`; None for the hand-written
        derivative of the sequence function, or `memory.store` if the neuron has none.
    learn: names of the parameters to learn; the others stay constant."""


def _layer(
    name: str, maker: Callable[..., Model], *, learn: tuple[str, ...] = ()
) -> Callable[..., Neuron]:
    """Constructor of the layer of one neuron model.

    Signature and docstring are those of `maker` with `scan` and `learn` added, so that help on the
    layer shows the neuron's equations.

    Args:
        name: name of the constructor.
        maker: function from options to a `neurons.Model`.
        learn: parameters learned by default.
    """
    default = learn

    def layer(
        *, scan: Scan | None = None, learn: tuple[str, ...] = default, **options: Any
    ) -> Neuron:
        return Neuron(maker(**options), scan=scan, learn=learn)

    # The first two parameters are scan and learn; the rest is **options.
    own = list(inspect.signature(layer, eval_str=False).parameters.values())[:2]
    options = inspect.signature(maker).parameters.values()
    documentation = inspect.getdoc(maker) or ""
    layer.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*options, *own], return_annotation=Neuron
    )
    layer.__doc__ = documentation.replace("Model of", "Layer of", 1).replace("Args:", _OPTIONS, 1)
    layer.__name__ = layer.__qualname__ = name
    return layer


IF = _layer("IF", neurons.integrate_fire_model)
LIF = _layer("LIF", neurons.lif_model)
PLIF = _layer("PLIF", neurons.plif_model, learn=("w",))
ALIF = _layer("ALIF", neurons.alif_model)
CubaLIF = _layer("CubaLIF", neurons.cuba_lif_model)
LI = _layer("LI", neurons.li_model)
CoupledLIF = _layer("CoupledLIF", neurons.coupled_lif_model)
AdEx = _layer("AdEx", neurons.adex_model)
Izhikevich = _layer("Izhikevich", neurons.izhikevich_model)
SRM = _layer("SRM", neurons.srm.srm_model)
PSP = _layer("PSP", neurons.srm.psp_model)


class Disabled(nnx.Module):
    """Stateless spikes, `[T, B, ...] -> [T, B, ...]`.

        s = H(v - threshold),      ds/dv := spike.derivative(v - threshold)

    The neuron fires on the input `v` of this timestep and forgets it; only the few enabled neurons
    of T-RevSNN carry a membrane from step to step. With the defaults it is
    `floor(clip(v, 0, 1) + 0.5)`, a spike iff `v >= 0.5`, with a gradient of 1 on [0, 1].

    The rule is the same in training and evaluation. The released T-RevSNN code fires at `v >= 0.5`
    in training and rounds half to even in evaluation, where `v = 0.5` then is no spike: the two
    differ there and nowhere else, and here they do not.

    Args:
        threshold: input at which a neuron fires.
        spike: the spike function of `input - threshold`; with the default threshold the default
            passes gradients where the input lies in [0, 1], ends included.

    Reference: Hu, Yao, Qiu, Chou, Cai, Qiao, Tian, Xu, Li, "High-Performance Temporal Reversible
    Spiking Neural Networks with O(L) Training Memory and O(1) Inference Cost", 2024,
    arXiv:2405.16466.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        spike: surrogate.Surrogate = surrogate.straight_through(),  # noqa: B008 (frozen)
    ):
        check_numbers("nn.Disabled", threshold=threshold)
        # By this name `snnjax.cost` recognises a layer without a membrane.
        self.threshold, self.spike, self.name = threshold, spike, "disabled"

    initial_state = no_state

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Spikes, 0 or 1 in the dtype of the inputs."""
        inputs = as_floating("nn.Disabled", inputs)
        spikes = self.spike(inputs - self.threshold)
        # Without a memory the membrane is the input; the layer itself has the field `threshold`.
        seen = neuron_taps(call.taps, spikes, currents=inputs, params=self, membrane=inputs)
        return spikes, Aux(taps={"": seen} if seen else {})
