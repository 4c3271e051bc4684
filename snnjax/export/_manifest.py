"""The manifest of an artifact: its metadata and the digests of its files.

Fields of manifest.json:

    schema          1
    kind            "window": inputs as the data set stores them to logits;
                    "streaming": state and one frame to the next state and outputs
    name, step      name of the experiment, and step of the checkpoint
    versions        versions of snnjax, jax and jaxlib that wrote it
    platforms       platforms it runs on
    timesteps       T of the training window
    batch           "any", or the only batch size
    input           {"shape", "dtype"} of one example, or of one frame
    output          {"shape", "dtype"} for one example
    class_names     names in the order of the outputs
    encode          {"name", "source"} of the function from inputs to frames; text, never run
    readout         {"name", "source"} of the function from outputs to logits; text, never run
    clips           number of consecutive examples that are clips of one recording
    state           streaming only: {name: {"shape", "dtype", "batch_axis"}} for one example
    files           {name: {"sha256", "bytes"}} of the other files
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from snnjax.export.tensors import ArtifactError, read_bytes

__all__ = ["MANIFEST", "PROGRAM", "SCHEMA", "STATE", "WEIGHTS", "digest", "read", "read_file"]

SCHEMA = 1
MANIFEST, PROGRAM = "manifest.json", "program.jax_export"
WEIGHTS, STATE = "weights.safetensors", "state.safetensors"
_FILES = {"window": {PROGRAM, WEIGHTS}, "streaming": {PROGRAM, WEIGHTS, STATE}}
# The rest of the package reads these fields unchecked: `_check` refuses other types.
_FIELDS = {
    "name": str, "step": int, "versions": dict, "platforms": list, "timesteps": int,
    "batch": int | str, "input": dict, "output": dict, "class_names": list, "encode": dict,
    "readout": dict, "clips": int, "files": dict,
}  # fmt: skip


def digest(data: bytes) -> dict[str, Any]:
    """Digest and size of a file, as stored in the manifest."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def read(path: Path) -> dict[str, Any]:
    """Reads and validates the manifest of an artifact.

    Args:
        path: Folder of the artifact.

    Returns:
        Its fields.

    Raises:
        ArtifactError: If the manifest is missing, damaged, or of an unknown schema.
    """
    if not (path / MANIFEST).is_file():
        there = "has no manifest.json" if path.is_dir() else "is not there"
        raise ArtifactError(f"{path} {there}: give a folder that snnjax export made")
    try:
        fields = json.loads(read_bytes(path / MANIFEST))
        assert isinstance(fields, dict), "it is no object"
        schema = fields["schema"]
    # RecursionError: deeply nested JSON exhausts the parser's stack.
    except (ValueError, RecursionError, AssertionError, KeyError) as error:
        raise _damaged(path / MANIFEST, f"{type(error).__name__}: {error}") from error
    if schema != SCHEMA:
        raise ArtifactError(
            f"{path} is of schema {schema!r} and this snnjax reads {SCHEMA}: use the version that "
            "wrote it, or a newer one"
        )
    _check(path / MANIFEST, fields)
    return fields


def read_file(path: Path, manifest: dict[str, Any], name: str) -> bytes:
    """Reads one of the artifact's files and verifies its digest.

    Args:
        path: Folder of the artifact.
        manifest: Its manifest.
        name: Name of the file.

    Returns:
        The content of the file.

    Raises:
        ArtifactError: If the file is missing or was changed.
    """
    data, expected = read_bytes(path / name), manifest["files"][name]
    # Digests detect damage only: whoever changes a file can change the manifest, too.
    if (actual := digest(data)) != expected:
        raise _damaged(
            path / name,
            f"its SHA-256 is {actual['sha256'][:12]}... and the manifest says "
            f"{str(expected.get('sha256'))[:12]}...",
        )
    return data


def _check(path: Path, fields: dict[str, Any]) -> None:
    kind, files = fields.get("kind"), fields.get("files")
    wrong = [name for name, types in _FIELDS.items() if not isinstance(fields.get(name), types)]
    if not isinstance(kind, str) or kind not in _FILES:
        wrong.append("kind")
    # The set of files depends on the kind: only streaming has a resting state.
    elif not isinstance(files, dict) or set(files) != _FILES[kind] or not _all_dicts(files):
        wrong.append("files")
    elif kind == "streaming" and not _is_state(fields.get("state")):
        wrong.append("state")
    if not _is_leaf(fields.get("input")):
        wrong.append("input")
    if wrong:
        raise _damaged(path, f"{', '.join(wrong)} missing or of another type")


def _is_state(value: Any) -> bool:
    return _all_dicts(value) and all("batch_axis" in leaf for leaf in value.values())


def _is_leaf(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("shape"), list) and "dtype" in value


def _all_dicts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, dict) for entry in value.values())


def _damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(f"{path} is damaged ({reason}): copy the artifact, or export it, anew")
