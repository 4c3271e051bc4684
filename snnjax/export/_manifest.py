"""The manifest of an artifact: its metadata and the digests of its files and of itself.

Fields of manifest.json:

    schema          2; 1, of version 0.1, lacks the digest
    digest          SHA-256 of the file's own bytes without these 64 digits
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

import contextlib
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snnjax.export.tensors import ArtifactError, read_bytes

__all__ = [
    "MANIFEST", "PROGRAM", "SCHEMA", "STATE", "WEIGHTS", "digest", "read", "read_file", "seal",
]  # fmt: skip

SCHEMA = 2
MANIFEST, PROGRAM = "manifest.json", "program.jax_export"
WEIGHTS, STATE = "weights.safetensors", "state.safetensors"
_FILES = {"window": {PROGRAM, WEIGHTS}, "streaming": {PROGRAM, WEIGHTS, STATE}}
_DIGEST = re.compile(r"[0-9a-f]{64}")


def _is_count(least: int) -> Callable[[Any], bool]:
    # True is an int in Python and a mistake here.
    return lambda value: type(value) is int and value >= least


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _is_function(value: Any) -> bool:
    return isinstance(value, dict) and {"name", "source"} <= set(value) and _has_texts(value)


def _has_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())


def _is_leaf(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("dtype"), str):
        return False
    shape = value.get("shape")
    return isinstance(shape, list) and all(map(_is_count(0), shape))


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _is_leaf(leaf) and _is_axis(leaf.get("batch_axis", ...), len(leaf["shape"]))
        for leaf in value.values()
    )


def _is_axis(value: Any, dimensions: int) -> bool:
    return value is None or (_is_count(0)(value) and value < dimensions)


# The rest of the package reads these fields unchecked: `_check` refuses other values.
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "step": _is_count(0),
    "versions": _has_texts,
    "platforms": lambda value: _is_texts(value) and bool(value),
    "timesteps": _is_count(1),
    "batch": lambda value: value == "any" or _is_count(1)(value),
    "input": _is_leaf,
    "output": _is_leaf,
    "class_names": _is_texts,
    "encode": _is_function,
    "readout": _is_function,
    "clips": _is_count(1),
    "files": lambda value: isinstance(value, dict),
}


def digest(data: bytes) -> dict[str, Any]:
    """Digest and size of a file, as stored in the manifest."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def seal(fields: dict[str, Any]) -> str:
    """Text of a manifest with its own digest.

    Args:
        fields: Its other fields.

    Returns:
        Content of manifest.json.
    """
    text = json.dumps({**fields, "digest": ""}, indent=2) + "\n"
    own = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({**fields, "digest": own}, indent=2) + "\n"


def read(path: Path, *, pinned: str | None = None) -> dict[str, Any]:
    """Reads and validates the manifest of an artifact.

    Args:
        path: Folder of the artifact.
        pinned: Digest that the manifest must have; None admits any.

    Returns:
        Its fields.

    Raises:
        ArtifactError: If the manifest is missing, damaged, of an unknown schema, or not the pinned
            one.
    """
    if not (path / MANIFEST).is_file():
        there = "has no manifest.json" if path.is_dir() else "is not there"
        raise ArtifactError(f"{path} {there}: give a folder that snnjax export made")
    data = read_bytes(path / MANIFEST)
    try:
        fields = json.loads(data)
        assert isinstance(fields, dict), "it is no object"
        schema = fields["schema"]
    # RecursionError: deeply nested JSON exhausts the parser's stack.
    except (ValueError, RecursionError, AssertionError, KeyError) as error:
        raise _damaged(path / MANIFEST, f"{type(error).__name__}: {error}") from error
    # Not by `in`: True equals 1.
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        raise ArtifactError(
            f"{path} is of schema {schema!r} and this snnjax reads 1 to {SCHEMA}: use the version "
            "that wrote it, or a newer one"
        )
    _check(path / MANIFEST, fields)
    _check_digest(path / MANIFEST, data, fields, pinned)
    return fields


def _check_digest(path: Path, data: bytes, fields: dict[str, Any], pinned: str | None) -> None:
    stored = fields.get("digest")
    if fields["schema"] > 1 and not (isinstance(stored, str) and _DIGEST.fullmatch(stored)):
        raise _damaged(path, "digest missing or of another type")
    stored = stored if isinstance(stored, str) else ""
    actual = hashlib.sha256(data.replace(stored.encode(), b"") if stored else data).hexdigest()
    if stored and actual != stored:
        raise _damaged(path, f"its SHA-256 is {actual[:12]}... and it says {stored[:12]}...")
    if pinned is not None and not _DIGEST.fullmatch(pinned):
        raise ArtifactError(
            f"digest is the 64 lower-case hexadecimal digits that snnjax export printed, got "
            f"{pinned!r}"
        )
    if pinned not in (None, actual):
        raise ArtifactError(
            f"{path} has the digest {actual} and not the pinned {pinned}: it is another artifact, "
            "or was changed; use the pinned one, or pin this one if you trust its source"
        )


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
    expected = manifest["files"][name]
    with contextlib.suppress(OSError):
        # Before it is read: a wrong file may be larger than the memory.
        if (size := (path / name).stat().st_size) != expected.get("bytes"):
            reason = f"it has {size} bytes, the one of that SHA-256 has {expected.get('bytes')}"
            raise _damaged(path / name, reason)
    data = read_bytes(path / name)
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
    wrong = [name for name, admits in _FIELDS.items() if not admits(fields.get(name))]
    if not isinstance(kind, str) or kind not in _FILES:
        wrong.append("kind")
    # The set of files depends on the kind: only streaming has a resting state.
    elif not isinstance(files, dict) or set(files) != _FILES[kind] or not _all_dicts(files):
        wrong.append("files")
    elif kind == "streaming" and not _is_state(fields.get("state")):
        wrong.append("state")
    if wrong:
        raise _damaged(path, f"{', '.join(wrong)} missing or of another type")


def _all_dicts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, dict) for entry in value.values())


def _damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(f"{path} is damaged ({reason}): copy the artifact, or export it, anew")
