"""Learning without time in the gradient: implicit differentiation and spike representations.

A spiking network runs over T timesteps and keeps nothing of them. Its gradient is that of the map
between firing rates which the simulation approaches, so its bytes do not depend on T. It is another
derivative than backpropagation through time, and says so: `exact` is False.
"""

from snnjax.learning import rates, solvers
from snnjax.learning.derivatives import implicit_rate, surrogate_vjp

__all__ = ["implicit_rate", "rates", "solvers", "surrogate_vjp"]
