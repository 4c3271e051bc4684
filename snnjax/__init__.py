"""snnjax: spiking neural networks in JAX and Flax, with memory as an argument."""

__version__ = "0.1.0"
