"""The manifest of an artifact: what it is, what it takes and gives, and the digests of its files.

Fields of manifest.json:

    schema          1
    kind            "window": inputs as the data set stores them to logits;
                    "streaming": state and one frame to the next state and outputs
    name, step      of the experiment, and of the checkpoint
    versions        of snnjax, jax and jaxlib that wrote it
    platforms       on which it runs
    timesteps       T of the window it was trained on
    batch           "any", or the only number of examples it takes
    input           {"shape", "dtype"} of one example, or of one frame
    output          {"shape", "dtype"} for one example
    class_names     in the order of the outputs
    encode          {"name", "source"}: how frames are made of inputs; text, never run
    readout         {"name", "source"}: how logits are made of outputs; text, never run
    clips           neighbouring examples that are judged as one recording
    state           of streaming: {name: {"shape", "dtype", "batch_axis"}} for one example
    files           {name: {"sha256", "bytes"}} of the other files
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from snnjax.export.errors import ArtifactError
from snnjax.export.tensors import read_bytes

__all__ = ["MANIFEST", "PROGRAM", "SCHEMA", "STATE", "WEIGHTS", "digest", "read", "read_file"]

SCHEMA = 1
MANIFEST, PROGRAM = "manifest.json", "program.jax_export"
WEIGHTS, STATE = "weights.safetensors", "state.safetensors"
_FILES = {"window": {PROGRAM, WEIGHTS}, "streaming": {PROGRAM, WEIGHTS, STATE}}
_FIELDS = {
    "name": str, "step": int, "versions": dict, "platforms": list, "timesteps": int,
    "batch": int | str, "input": dict, "output": dict, "class_names": list, "encode": dict,
    "readout": dict, "clips": int, "files": dict,
}  # fmt: skip


def digest(data: bytes) -> dict[str, Any]:
    """What the manifest keeps of a file."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def read(path: Path) -> dict[str, Any]:
    """Reads and checks the manifest of an artifact.

    Args:
        path: The artifact's folder.

    Raises:
        ArtifactError: There is none, it is damaged, or of a schema this version does not know.
    """
    if not (path / MANIFEST).is_file():
        there = "has no manifest.json" if path.is_dir() else "is not there"
        raise ArtifactError(f"{path} {there}: give a folder that snnjax export made")
    try:
        found = json.loads(read_bytes(path / MANIFEST))
        assert isinstance(found, dict), "it is no object"
        schema = found["schema"]
    except (ValueError, RecursionError, AssertionError, KeyError) as error:
        raise _damaged(path / MANIFEST, f"{type(error).__name__}: {error}") from error
    if schema != SCHEMA:
        raise ArtifactError(
            f"{path} is of schema {schema!r} and this snnjax reads {SCHEMA}: use the version that "
            "wrote it, or a newer one"
        )
    _check(path / MANIFEST, found)
    return found


def read_file(path: Path, manifest: dict[str, Any], name: str) -> bytes:
    """The bytes of one of the artifact's files, if they are the ones that were written.

    Args:
        path: The artifact's folder.
        manifest: Its manifest.
        name: Of the file.

    Raises:
        ArtifactError: It is missing or was changed.
    """
    data, expected = read_bytes(path / name), manifest["files"][name]
    if (found := digest(data)) != expected:
        raise _damaged(
            path / name,
            f"its SHA-256 is {found['sha256'][:12]}... and the manifest says "
            f"{str(expected.get('sha256'))[:12]}...",
        )
    return data


def _check(path: Path, found: dict[str, Any]) -> None:
    kind, files = found.get("kind"), found.get("files")
    wrong = [name for name, of in _FIELDS.items() if not isinstance(found.get(name), of)]
    if not isinstance(kind, str) or kind not in _FILES:
        wrong.append("kind")
    elif not isinstance(files, dict) or set(files) != _FILES[kind] or not _all_dicts(files):
        wrong.append("files")
    elif kind == "streaming" and not _is_state(found.get("state")):
        wrong.append("state")
    if not _is_leaf(found.get("input")):
        wrong.append("input")
    if wrong:
        raise _damaged(path, f"{', '.join(wrong)} missing or of another type")


def _is_state(found: Any) -> bool:
    return _all_dicts(found) and all("batch_axis" in leaf for leaf in found.values())


def _is_leaf(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("shape"), list) and "dtype" in found


def _all_dicts(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(entry, dict) for entry in found.values())


def _damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(f"{path} is damaged ({reason}): copy the artifact, or export it, anew")
