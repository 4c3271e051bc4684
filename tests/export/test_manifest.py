"""The manifest: validation of every field, and digests that detect any change."""

import hashlib
import json
import random
import shutil

import pytest

from snnjax import export
from snnjax.export import _manifest as manifest
from tests.export import cases

pytestmark = pytest.mark.fast


def refused(folder, match):
    with pytest.raises(export.ArtifactError, match=match) as error:
        export.load(folder)
    assert "\n" not in str(error.value)


def test_it_says_what_the_artifact_takes_and_gives(window, source):
    fields = manifest.read(window)
    assert fields["schema"] == 2 and fields["kind"] == "window" and fields["step"] == 7
    assert fields["input"] == {"shape": [4, 4, 1], "dtype": "uint8"}
    assert fields["output"] == {"shape": [cases.K], "dtype": "float32"}
    assert fields["timesteps"] == cases.T and fields["batch"] == "any"
    assert fields["class_names"] == list(cases.NAMES)
    assert set(fields["versions"]) == {"snnjax", "jax", "jaxlib"}
    assert "encoding.direct" in fields["encode"]["source"] and fields["readout"]["name"] == "rate"
    for name, entry in fields["files"].items():
        assert (window / name).stat().st_size == entry["bytes"]


def test_streaming_takes_frames(streaming):
    fields = manifest.read(streaming)
    assert fields["kind"] == "streaming"
    assert fields["input"] == {"shape": [4, 4, 1], "dtype": "float32"}
    assert fields["state"]["2.v"] == {"shape": [1, 4, 4, 6], "dtype": "float32", "batch_axis": 0}


def test_no_artifact(tmp_path, window):
    refused(tmp_path / "none", "none is not there: give a folder that snnjax export made")
    refused(tmp_path, "has no manifest.json")
    refused(window / "manifest.json", "is not there")


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000, '{"kind": "window"}', "\0"])
def test_a_manifest_that_is_none(copy, text):
    (copy / "manifest.json").write_text(text)
    refused(copy, "manifest.json is damaged")


@pytest.mark.parametrize("schema", [0, 3, "1", True, None, [1]])
def test_an_unknown_schema_names_the_cure(copy, schema):
    cases.edit_manifest(copy, lambda fields: fields.update(schema=schema))
    refused(copy, "is of schema .* and this snnjax reads 1 to 2: use the version that wrote it")


@pytest.mark.parametrize("field", [*manifest._FIELDS, "kind"])
@pytest.mark.parametrize("value", ["absent", None, 1.5])
def test_every_field_is_looked_at(copy, field, value):
    def change(fields):
        fields.pop(field)
        if value != "absent":
            fields[field] = value

    cases.edit_manifest(copy, change)
    refused(copy, f"damaged .*{field}.* missing or of another type")


@pytest.mark.parametrize("files", [{}, {"../x": {}}, {"program.jax_export": {}, "x": {}}, []])
def test_only_the_files_of_an_artifact_are_opened(copy, files):
    cases.edit_manifest(copy, lambda fields: fields.update(files=files))
    refused(copy, "damaged .*files")


def test_a_state_that_is_none(streaming, tmp_path):
    fields = json.loads((streaming / "manifest.json").read_text())
    for state in (None, [], {"2.v": 3}, {"2.v": {}}):
        (tmp_path / "manifest.json").write_text(json.dumps({**fields, "state": state}))
        refused(tmp_path, "state")


@pytest.mark.parametrize("name", ["program.jax_export", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "bit", "gone", "empty"])
def test_any_change_of_a_file_is_found(copy, name, damage):
    path = copy / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        change = {"cut": path.read_bytes()[:-1], "bit": bytes(data), "empty": b""}
        path.write_bytes(change[damage])
    refused(copy, f"{name} is (not there|damaged .*SHA-256)")


def test_files_beside_them_are_not_looked_at(copy):
    (copy / "notes.txt").write_text("mine")
    assert export.load(copy).manifest["name"] == "tiny"


@pytest.mark.parametrize("bit", range(8))
def test_any_flip_of_the_manifest_is_detected(copy, bit):
    data = (copy / "manifest.json").read_bytes()
    draw = random.Random(bit)
    for place in draw.sample(range(len(data)), 12):
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        (copy / "manifest.json").write_bytes(bytes(changed))
        refused(copy, "anew|export")


def test_a_pinned_digest_covers_every_file(copy, source, tmp_path):
    own = manifest.read(copy)["digest"]
    export.load(copy, digest=own)
    # Damage is found by the digests in the folder, malice by the pinned one only.
    data = (copy / "weights.safetensors").read_bytes()
    cases.replace_file(copy, "weights.safetensors", data[:-1] + b"\1")
    other = manifest.read(copy)["digest"]
    export.load(copy)
    with pytest.raises(export.ArtifactError, match=f"digest {other} and not the pinned {own}"):
        export.load(copy, digest=own)
    with pytest.raises(export.ArtifactError, match="64 lower-case hexadecimal digits"):
        export.load(copy, digest=own[:10])


def test_the_digest_can_be_computed_by_any_tool(window):
    own, text = manifest.read(window)["digest"], (window / "manifest.json").read_text()
    assert text.count(own) == 1
    assert hashlib.sha256(text.replace(own, "").encode()).hexdigest() == own


def set_state(axis=..., shape=..., dtype=..., name=...):
    def change(fields):
        leaf = fields["state"].pop("2.v")
        changes = {"batch_axis": axis, "shape": shape, "dtype": dtype}
        leaf |= {field: value for field, value in changes.items() if value is not ...}
        fields["state"]["2.v" if name is ... else name] = leaf

    return change


WRONG = {
    "input shape": lambda fields: fields["input"].update(shape=[4, 4, 2]),
    "input rank": lambda fields: fields["input"].update(shape=[4, 4]),
    "input dtype": lambda fields: fields["input"].update(dtype="int8"),
    "no dtype": lambda fields: fields["input"].update(dtype="floaty"),
    "negative shape": lambda fields: fields["input"].update(shape=[4, -4, 1]),
    "output shape": lambda fields: fields["output"].update(shape=[4]),
    "output dtype": lambda fields: fields["output"].update(dtype="float16"),
    "batch": lambda fields: fields.update(batch=4),
    "no batch": lambda fields: fields.update(batch=0),
    "batch in words": lambda fields: fields.update(batch="all"),
    "true as a batch": lambda fields: fields.update(batch=True),
    "a name missing": lambda fields: fields["class_names"].pop(),
    "a name too many": lambda fields: fields["class_names"].append("fly"),
    "a name that is none": lambda fields: fields["class_names"].__setitem__(0, 3),
    "platforms": lambda fields: fields.update(platforms=["cpu"]),
    "no platform": lambda fields: fields.update(platforms=[]),
    "no timestep": lambda fields: fields.update(timesteps=0),
    "half a clip": lambda fields: fields.update(clips=0),
    "a step before the first": lambda fields: fields.update(step=-1),
    "an encoding without source": lambda fields: fields["encode"].pop("source"),
    "a version that is a number": lambda fields: fields["versions"].update(jax=1),
}
WRONG_STATE = {
    "batch axis": set_state(axis=1),
    "no batch axis": set_state(axis=None),
    "a batch axis that is none": set_state(axis=9),
    "a negative batch axis": set_state(axis=-1),
    "shape": set_state(shape=[1, 4, 4, 5]),
    "several examples": set_state(shape=[2, 4, 4, 6]),
    "dtype": set_state(dtype="float16"),
    "no dtype": set_state(dtype="voltage"),
    "name": set_state(name="3.v"),
    "names of classes": lambda fields: fields["class_names"].pop(),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_manifest_that_does_not_fit_its_program_is_refused_on_loading(copy, name):
    cases.edit_manifest(copy, WRONG[name])
    refused(copy, "anew|export")


@pytest.mark.parametrize("name", WRONG_STATE)
def test_a_state_that_does_not_fit_its_program_is_refused_on_loading(streaming, tmp_path, name):
    folder = shutil.copytree(streaming, tmp_path / "copy")
    cases.edit_manifest(folder, WRONG_STATE[name])
    refused(folder, "anew")


def test_an_artifact_of_version_0_1_is_read(copy):
    """Schema 1 had no digest of the manifest; its program names its own weights."""
    path = copy / "manifest.json"
    fields = json.loads(path.read_text())
    del fields["digest"]
    path.write_text(json.dumps({**fields, "schema": 1}))
    inputs = cases.examples(2)
    assert export.load(copy)(inputs).shape == (2, cases.K)
    pinned = hashlib.sha256(path.read_bytes()).hexdigest()
    assert export.load(copy, digest=pinned)(inputs).shape == (2, cases.K)
    path.write_text(json.dumps({**fields, "schema": 2}))
    refused(copy, "digest missing")
