"""Export: a trained network as a folder that runs without the code that trained it.

    export.save(path, source)          writes an artifact; `snnjax export RUN` does it for a run
    export.load(path)                  reads it: a callable artifact
    export.save_weights(path, tree)    writes weights by name, for other tools
    export.load_weights(path, like)    reads them into a tree, bit for bit

    tensors.py        safetensors: arrays by name as bytes
    weights.py        names of arrays; files of weights
    manifest.py       metadata of an artifact, and digests of its files
    artifact.py       loading and calling; operations that a program may use
    functions.py      a network as functions of its weights, a window or one frame
    writing.py        the folder

Reading imports jax, numpy and safetensors only. Writing needs the network packages; `save` and
`Source` import them on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from snnjax.export.artifact import load
from snnjax.export.tensors import ArtifactError
from snnjax.export.weights import load_weights, save_weights

if TYPE_CHECKING:
    from snnjax.export.functions import Source as Source
    from snnjax.export.writing import save as save

__all__ = [
    "ArtifactError",
    "Source",
    "load",
    "load_weights",
    "save",
    "save_weights",
]

_WRITING = {"Source": "functions", "save": "writing"}


def __getattr__(name: str) -> Any:
    # Imported on first use: an artifact runs where flax is not installed.
    if name not in _WRITING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WRITING[name]}"), name)
