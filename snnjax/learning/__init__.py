"""Learning without time in the gradient: implicit differentiation and spike representations.

A spiking network runs over T timesteps and keeps nothing of them. Its gradient is that of the map
between firing rates which the simulation approaches, so its bytes do not depend on T. It is another
derivative than backpropagation through time, and says so: `exact` is False.
"""

from snnjax.learning import equilibrium, rates, solvers
from snnjax.learning.derivatives import implicit_rate, surrogate_vjp
from snnjax.learning.equilibrium import Equilibrium
from snnjax.learning.feedback import Frobenius, Spectral, transposed_conv, unit_filters
from snnjax.learning.rate_models import RateModel, dsr_if_model, dsr_lif_model, lif_rate_model
from snnjax.learning.rate_neuron import RateNeuron

__all__ = [
    "Equilibrium",
    "Frobenius",
    "RateModel",
    "RateNeuron",
    "Spectral",
    "dsr_if_model",
    "dsr_lif_model",
    "equilibrium",
    "implicit_rate",
    "lif_rate_model",
    "rates",
    "solvers",
    "surrogate_vjp",
    "transposed_conv",
    "unit_filters",
]
