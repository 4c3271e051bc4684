"""snnjax: spiking neural networks in JAX and Flax, with memory as an argument.

    loaded = snnjax.load("runs/digits-0")          a trained network: loaded(images) -> [B, K]

Rooms and functions are imported when they are first named: `import snnjax` alone imports nothing
else.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snnjax.training.loading import load as load

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
# Functions by name, with their modules.
_FUNCTIONS = {"load": "snnjax.training.loading"}


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS, *_FUNCTIONS})
