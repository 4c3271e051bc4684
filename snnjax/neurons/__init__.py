"""Neuron dynamics as pure functions, `step(params, state, current) -> (state, outputs)`.

    model = neurons.lif_model(decay=0.9)                   step, parameters, state at rest, inverse
    state = model.initial_state((B, N))
    state, spikes = memory.store(model.step, model.params, state, currents)

One neuron per module. Scan a step with any strategy of `snnjax.memory`; `lif_scan`, `lif_kernel`,
`coupled_lif_scan` and `reset_free_lif_scan` are whole sequences with hand-written derivatives.
`neurons.compat` has the neurons of other libraries.
"""

from snnjax.neurons import compat as compat
from snnjax.neurons.alif import alif, alif_model
from snnjax.neurons.coupled import coupled_lif, coupled_lif_model
from snnjax.neurons.coupled_scan import coupled_lif_scan
from snnjax.neurons.cuba_lif import cuba_lif, cuba_lif_model
from snnjax.neurons.decay import euler_decay, exponential_decay
from snnjax.neurons.integrate_fire import integrate_fire, integrate_fire_model
from snnjax.neurons.li import li, li_model
from snnjax.neurons.lif import LIFParams, lif, lif_model, lif_scan
from snnjax.neurons.lif_kernel import lif_kernel
from snnjax.neurons.model import Model
from snnjax.neurons.plif import plif, plif_model
from snnjax.neurons.psn import PSNParams, masked_weights, psn, psn_membranes, sliding_psn_model
from snnjax.neurons.recurrent import recurrent_model
from snnjax.neurons.reset import Reset, delayed, detached, none, subtract, to, zero
from snnjax.neurons.reset_free import linear_recurrence, reset_free_lif_scan

__all__ = [
    "LIFParams",
    "Model",
    "PSNParams",
    "Reset",
    "alif",
    "alif_model",
    "coupled_lif",
    "coupled_lif_model",
    "coupled_lif_scan",
    "cuba_lif",
    "cuba_lif_model",
    "delayed",
    "detached",
    "euler_decay",
    "exponential_decay",
    "integrate_fire",
    "integrate_fire_model",
    "li",
    "li_model",
    "lif",
    "lif_kernel",
    "lif_model",
    "lif_scan",
    "linear_recurrence",
    "masked_weights",
    "none",
    "plif",
    "plif_model",
    "psn",
    "psn_membranes",
    "recurrent_model",
    "reset_free_lif_scan",
    "sliding_psn_model",
    "subtract",
    "to",
    "zero",
]
