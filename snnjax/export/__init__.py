"""Export: a trained network as a folder that runs without the code that trained it.

    export.save(path, source)          writes an artifact; `snnjax export RUN` does it for a run
    export.load(path)                  reads it: an `Artifact` to call
    export.save_weights(path, tree)    weights alone, by their names, for other tools
    export.load_weights(path, like)    and back, bit for bit

    errors.py      ArtifactError
    tensors.py     safetensors: arrays by name as bytes
    weights.py     names of arrays; weights alone
    manifest.py    what an artifact says of itself, and the digests of its files
    operations.py  what its program may do
    artifact.py    loading and calling
    functions.py   a network as functions of its weights, a window or one frame
    writing.py     the folder

Reading imports jax, numpy and safetensors only; writing, which knows networks, is imported when it
is first named.
"""

import importlib
from typing import TYPE_CHECKING, Any

from snnjax.export.artifact import Artifact, StreamingArtifact, WindowArtifact, load
from snnjax.export.errors import ArtifactError, PlatformError
from snnjax.export.weights import load_weights, save_weights

if TYPE_CHECKING:
    from snnjax.export.functions import Source as Source
    from snnjax.export.writing import check_free as check_free
    from snnjax.export.writing import check_platforms as check_platforms
    from snnjax.export.writing import describe as describe
    from snnjax.export.writing import save as save

__all__ = [
    "Artifact",
    "ArtifactError",
    "PlatformError",
    "Source",
    "StreamingArtifact",
    "WindowArtifact",
    "check_free",
    "check_platforms",
    "describe",
    "load",
    "load_weights",
    "save",
    "save_weights",
]

_WRITING = {
    "Source": "functions",
    **dict.fromkeys(("check_free", "check_platforms", "describe", "save"), "writing"),
}


def __getattr__(name: str) -> Any:
    if name not in _WRITING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WRITING[name]}"), name)
