"""The manifest: validation of every field, and digests that detect any change."""

import json

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
    assert fields["schema"] == 1 and fields["kind"] == "window" and fields["step"] == 7
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


@pytest.mark.parametrize("schema", [0, 2, "1", None, [1]])
def test_an_unknown_schema_names_the_cure(copy, schema):
    cases.edit_manifest(copy, lambda fields: fields.update(schema=schema))
    refused(copy, "is of schema .* and this snnjax reads 1: use the version that wrote it")


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
