"""Neurons of other libraries, as models of this one.

Libraries disagree on whether the input is scaled, where the reset acts, whether it is
differentiated, and whether a membrane exactly at its threshold fires. Each function takes the
arguments of the library's neuron, with its names and defaults, and returns the `neurons.Model` of
equal spikes and gradients:

    library and neuron       charge          fires   reset acts      gradient of the reset
    spikingjelly LIFNode     (x - v) / tau   >=      same step       full, unless detach_reset
    snntorch Leaky           beta v + x      >       next step       detached
    norse lif_box            (x - v) / tau   >       same step       full
    spyx LIF                 beta v + x      >       next step       full; output one step late

A resting potential other than zero (spikingjelly's `v_reset`, norse's `v_leak`) shifts the
membrane: theirs = ours + `Model.rest`, and the threshold is shifted likewise.
"""

from snnjax.neurons.compat.norse import norse_lif_box
from snnjax.neurons.compat.snntorch import snntorch_leaky, snntorch_synaptic
from snnjax.neurons.compat.spikingjelly import spikingjelly_if, spikingjelly_lif, spikingjelly_plif
from snnjax.neurons.compat.spyx import spyx_lif

__all__ = [
    "norse_lif_box",
    "snntorch_leaky",
    "snntorch_synaptic",
    "spikingjelly_if",
    "spikingjelly_lif",
    "spikingjelly_plif",
    "spyx_lif",
]
