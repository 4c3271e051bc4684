"""Writing: atomic, reproducible, and free of machine paths."""

import json
import pathlib

import pytest

from snnjax import export
from snnjax.export.writing import describe
from tests.export import cases

pytestmark = pytest.mark.fast


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_holds_what_the_manifest_says(window, streaming):
    assert names(window) == ["manifest.json", "program.jax_export", "weights.safetensors"]
    assert names(streaming) == [
        "manifest.json", "program.jax_export", "state.safetensors", "weights.safetensors",
    ]  # fmt: skip


def test_the_same_source_gives_the_same_bytes_anywhere(tmp_path, window):
    again = export.save(tmp_path / "elsewhere" / "again", cases.source())
    for name in names(window):
        assert (again / name).read_bytes() == (window / name).read_bytes(), name


def test_no_path_of_this_machine_leaves_it(window):
    data = (window / "program.jax_export").read_bytes()
    for word in ("site-packages", "snnjax/", ".py", str(pathlib.Path.home())):
        assert word.encode() not in data, word


def test_the_weights_are_not_in_the_program(window, source):
    kernel = bytes(source.network.body.layers[4].function.kernel[...])
    assert kernel in (window / "weights.safetensors").read_bytes()
    assert kernel not in (window / "program.jax_export").read_bytes()


@pytest.mark.parametrize("made", ["folder", "file", "artifact"])
def test_nothing_is_overwritten(tmp_path, source, made, copy):
    path = {"folder": tmp_path / "a", "file": tmp_path / "b", "artifact": copy}[made]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("mine")
    with pytest.raises(export.ArtifactError, match="is there already .* choose another --out"):
        export.save(path, source)
    assert names(tmp_path) == ["a", "b", "copy"] and (tmp_path / "b").read_text() == "mine"


def test_a_failed_export_leaves_nothing(tmp_path, source):
    def verify(path):
        assert "manifest.json" in names(path), "it is looked at when it is whole"
        assert path.parent == tmp_path and path.name != "a", "and before it has its name"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export.save(tmp_path / "a", source, verify=verify)
    assert not names(tmp_path)


@pytest.mark.parametrize("platforms", [("gpu",), (), ("cpu", "cpu"), ("cpu", "")])
def test_platforms_are_those_of_jax(tmp_path, source, platforms):
    with pytest.raises(export.ArtifactError, match="cpu, cuda, rocm, tpu, got"):
        export.save(tmp_path / "a", source, platforms=platforms)
    assert not names(tmp_path)


def test_a_function_is_described_by_its_text():
    told = describe(cases.encode)
    assert told["name"] == "encode" and told["source"].startswith("def encode(inputs):")
    assert json.dumps(describe(object()))
