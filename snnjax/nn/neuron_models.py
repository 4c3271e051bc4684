"""The models of `snnjax.neurons` as layers, one line each.

    nn.LIF(decay=0.9, scan=scan, learn=("decay",))

is `nn.Neuron(neurons.lif_model(decay=0.9), scan=scan, learn=("decay",))`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from snnjax import neurons
from snnjax.neurons import Model
from snnjax.nn.neuron import Neuron
from snnjax.typing import Scan

__all__ = ["ALIF", "IF", "LI", "LIF", "PLIF", "CoupledLIF", "CubaLIF"]

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
