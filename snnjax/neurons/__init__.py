"""Neuron dynamics as pure functions, `step(params, state, current) -> (state, outputs)`.

    model = neurons.lif_model(decay=0.9)                   step, parameters, state at rest, inverse
    state = model.initial_state((B, N))
    state, spikes = memory.store(model.step, model.params, state, currents)

One neuron per module. Scan a step with any strategy of `snnjax.memory`; `lif_scan` and
`lif_kernel` are whole sequences with hand-written derivatives. Public modules hold the parts:

    reset         rules of the reset: subtract, zero, to, none; detached and delayed
    decay         decay per timestep from a time constant
    psn           parallel spiking neurons
    reset_free    LIF neurons without a reset, as a parallel scan
    sigma_delta   multi-bit spikes: coder, its range, its model
    integrator    gated integrators behind a coder
    srm           responses of the spike response model
    compat        neurons of other libraries
"""

from snnjax.neurons import compat, decay, integrator, psn, reset, reset_free, sigma_delta, srm
from snnjax.neurons.adex import adex, adex_model
from snnjax.neurons.alif import alif, alif_model
from snnjax.neurons.coupled import coupled_lif, coupled_lif_model
from snnjax.neurons.cuba_lif import cuba_lif, cuba_lif_model
from snnjax.neurons.integrate_fire import integrate_fire, integrate_fire_model
from snnjax.neurons.izhikevich import izhikevich, izhikevich_model
from snnjax.neurons.li import li, li_model
from snnjax.neurons.lif import LIFParams, lif, lif_model, lif_scan
from snnjax.neurons.lif_kernel import lif_kernel
from snnjax.neurons.model import Model
from snnjax.neurons.plif import plif, plif_model
from snnjax.neurons.recurrent import recurrent_model
from snnjax.neurons.refractory import refractory_model

__all__ = [
    "compat",
    "decay",
    "reset_free",
    "reset",
    "psn",
    "sigma_delta",
    "integrator",
    "srm",
    "LIFParams",
    "Model",
    "adex",
    "adex_model",
    "alif",
    "alif_model",
    "coupled_lif",
    "coupled_lif_model",
    "cuba_lif",
    "cuba_lif_model",
    "integrate_fire",
    "integrate_fire_model",
    "izhikevich",
    "izhikevich_model",
    "li",
    "li_model",
    "lif",
    "lif_kernel",
    "lif_model",
    "lif_scan",
    "plif",
    "plif_model",
    "recurrent_model",
    "refractory_model",
]
