"""Conversion of trained networks into spiking ones."""

__all__: list[str] = []
