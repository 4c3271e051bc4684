"""Neuron dynamics as pure functions: `step(params, state, current) -> (state, spikes)`.

One model per file. Scan a step with any strategy of `snnjax.memory`; the `*_scan` functions are
whole sequences with a hand-written derivative.
"""

from snnjax.neurons.alif import ALIFParams, ALIFState, alif, alif_state
from snnjax.neurons.conventions import (
    Convention,
    norse_lif_box,
    snntorch_leaky,
    snntorch_synaptic,
    spikingjelly_if,
    spikingjelly_lif,
    spikingjelly_plif,
    spyx_lif,
)
from snnjax.neurons.coupled import (
    CoupledLIFInverse,
    CoupledLIFParams,
    CoupledLIFState,
    coupled_lif,
    coupled_lif_inverse,
    coupled_lif_state,
)
from snnjax.neurons.coupled_scan import coupled_lif_scan
from snnjax.neurons.cuba_lif import CubaLIFParams, CubaLIFState, cuba_lif, cuba_lif_state
from snnjax.neurons.decay import euler_decay, exponential_decay
from snnjax.neurons.integrate_fire import (
    IFParams,
    IFState,
    integrate_fire,
    integrate_fire_scan,
    integrate_fire_state,
)
from snnjax.neurons.inverses import (
    ALIFInverse,
    CubaLIFInverse,
    LIFInverse,
    alif_inverse,
    cuba_lif_inverse,
    integrate_fire_inverse,
    li_inverse,
    lif_inverse,
    plif_inverse,
)
from snnjax.neurons.li import LIParams, LIState, li, li_state
from snnjax.neurons.lif import LIFParams, LIFState, charge, lif, lif_scan, lif_state
from snnjax.neurons.plif import (
    PLIFParams,
    PLIFState,
    plif,
    plif_decay,
    plif_scan,
    plif_state,
    plif_weight,
)
from snnjax.neurons.recurrent import (
    Recurrent,
    RecurrentParams,
    RecurrentState,
    dense,
    recurrent,
)
from snnjax.neurons.reset import Reset, delayed, detached, none, subtract, to, zero

__all__ = [
    "ALIFInverse",
    "ALIFParams",
    "ALIFState",
    "Convention",
    "CoupledLIFInverse",
    "CoupledLIFParams",
    "CoupledLIFState",
    "CubaLIFInverse",
    "CubaLIFParams",
    "CubaLIFState",
    "IFParams",
    "IFState",
    "LIFInverse",
    "LIFParams",
    "LIFState",
    "LIParams",
    "LIState",
    "PLIFParams",
    "PLIFState",
    "Recurrent",
    "RecurrentParams",
    "RecurrentState",
    "Reset",
    "alif",
    "alif_inverse",
    "alif_state",
    "charge",
    "coupled_lif",
    "coupled_lif_inverse",
    "coupled_lif_scan",
    "coupled_lif_state",
    "cuba_lif",
    "cuba_lif_inverse",
    "cuba_lif_state",
    "delayed",
    "dense",
    "detached",
    "euler_decay",
    "exponential_decay",
    "integrate_fire",
    "integrate_fire_inverse",
    "integrate_fire_scan",
    "integrate_fire_state",
    "li",
    "li_inverse",
    "li_state",
    "lif",
    "lif_inverse",
    "lif_scan",
    "lif_state",
    "none",
    "norse_lif_box",
    "plif",
    "plif_decay",
    "plif_inverse",
    "plif_scan",
    "plif_state",
    "plif_weight",
    "recurrent",
    "snntorch_leaky",
    "snntorch_synaptic",
    "spikingjelly_if",
    "spikingjelly_lif",
    "spikingjelly_plif",
    "spyx_lif",
    "subtract",
    "to",
    "zero",
]
