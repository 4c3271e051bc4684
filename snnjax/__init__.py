"""snnjax: spiking neural networks in JAX and Flax, with memory as an argument.

Rooms are imported when they are first named: `import snnjax` alone imports nothing else.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

_ROOMS = (
    "conversion",
    "cost",
    "data",
    "encoding",
    "export",
    "learning",
    "losses",
    "memory",
    "metrics",
    "models",
    "neurons",
    "nn",
    "plasticity",
    "quantization",
    "readout",
    "redundancy",
    "surrogate",
    "training",
    "typing",
    "viz",
)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
