"""Loading and calling an artifact without the training code."""

import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

from snnjax import export, readout
from snnjax.export.artifact import PlatformError, WindowArtifact, check_program
from tests.export import cases

ALONE = """
import sys

class Blocked:
    names = ("snnjax.training", "snnjax.nn", "snnjax.models", "snnjax.data", "snnjax.cli",
             "flax", "optax", "orbax", "chex", "tensorflow", "matplotlib")

    def find_spec(self, name, path=None, target=None):
        if any(name == blocked or name.startswith(blocked + ".") for blocked in self.names):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import numpy as np
from snnjax import export

window, streaming, given, frames, out = sys.argv[1:]
given, frames = np.load(given), np.load(frames)
logits = export.load(window)(given)
artifact = export.load(streaming)
state, outputs = artifact.initial_state(len(given)), []
for frame in frames:
    state, one = artifact(state, frame)
    outputs.append(one)
np.savez(out, logits=logits, outputs=np.stack(outputs))
mine = {name for name in sys.modules if name.startswith("snnjax.")}
print(*sorted(mine))
"""


def test_it_runs_where_nothing_of_the_training_code_can_be_imported(
    tmp_path, source, window, streaming
):
    given = cases.examples(5)
    frames = np.asarray(cases.frames_of(given))
    paths = [tmp_path / name for name in ("given.npy", "frames.npy", "out.npz")]
    np.save(paths[0], given)
    np.save(paths[1], frames)
    command = [sys.executable, "-c", ALONE, window, streaming, *paths]
    found = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, env=os.environ
    )
    assert found.returncode == 0, found.stderr
    rooms = {name.split(".")[1] for name in found.stdout.split()}
    assert rooms == {"export", "typing"}
    here = cases.stream(export.load(streaming), given)
    with np.load(paths[2]) as out:
        np.testing.assert_array_equal(out["logits"], cases.answer(source, given))
        np.testing.assert_array_equal(readout.rate(out["outputs"]), here)


def test_one_artifact_takes_batches_of_any_size(source, window):
    artifact = export.load(window)
    assert isinstance(artifact, WindowArtifact)
    for batch in (1, 2, 6):
        given = cases.inputs(batch, seed=batch)
        np.testing.assert_array_equal(artifact(given), cases.answer(source, given))


def test_a_fixed_batch_is_the_only_one(tmp_path, source):
    artifact = export.load(export.save(tmp_path / "a", source, batch=2, streaming=True))
    state, outputs = artifact(artifact.initial_state(2), cases.frames_of(cases.examples(2))[0])
    assert outputs.shape == (2, cases.K)
    with pytest.raises(export.ArtifactError, match="takes batches of 2 examples, got 3: fill"):
        artifact.initial_state(3)
    with pytest.raises(export.ArtifactError, match="takes batches of 2 examples, got 3"):
        artifact(state, cases.frames_of(cases.examples(3))[0])


def test_it_can_stand_inside_other_compiled_code(source, window):
    artifact = export.load(window)
    classes = jax.jit(lambda given: artifact(given).argmax(-1))
    given = cases.examples(5)
    np.testing.assert_array_equal(classes(given), cases.answer(source, given).argmax(-1))


@pytest.mark.fast
@pytest.mark.parametrize(
    "given",
    [
        np.zeros((2, 4, 4, 1), np.float32),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((2, 4, 4, 2), np.uint8),
        np.zeros((2, 16), np.uint8),
        np.uint8(3),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_what_it_takes(window, given):
    with pytest.raises(export.ArtifactError, match=r"tiny takes uint8\[B, 4, 4, 1\], got"):
        export.load(window)(given)


@pytest.mark.fast
def test_no_example_at_all(window, streaming):
    with pytest.raises(export.ArtifactError, match="at least one example, got 0"):
        export.load(window)(np.zeros((0, 4, 4, 1), np.uint8))
    with pytest.raises(export.ArtifactError, match="at least one example, got 0"):
        export.load(streaming).initial_state(0)


@pytest.mark.fast
def test_a_state_of_another_batch_or_network_is_refused(streaming):
    artifact = export.load(streaming)
    frame = jnp.zeros((3, *cases.SHAPE))
    with pytest.raises(export.ArtifactError, match=r"does not fit 3 frames: 2\.v is float32\[2, "):
        artifact(artifact.initial_state(2), frame)
    with pytest.raises(export.ArtifactError, match=r"5\.v is absent there"):
        artifact({"2.v": artifact.initial_state(3)["2.v"]}, frame)


def test_weights_can_be_replaced(tmp_path, source, window):
    """Weights of another training of the same network, from any tool that writes safetensors."""
    other = cases.source(cases.network(seed=9), statistics=source.statistics)
    parts = {"statistics": other.statistics}
    net = export.save_weights(tmp_path / "net", other.network)
    rest = export.save_weights(tmp_path / "rest", parts)
    import safetensors.numpy as tensors

    both = {**tensors.load_file(net), **tensors.load_file(rest)}
    tensors.save_file(both, tmp_path / "both.safetensors")
    given = cases.examples(5)
    found = export.load(window, weights=tmp_path / "both.safetensors")(given)
    np.testing.assert_array_equal(found, cases.answer(other, given))
    with pytest.raises(export.ArtifactError, match="statistics.1.mean is absent there"):
        export.load(window, weights=net)


@pytest.mark.fast
def test_an_artifact_for_other_machines_names_both_ways_out(tmp_path, source):
    path = export.save(tmp_path / "a", source, platforms=("cuda", "tpu"))
    with pytest.raises(PlatformError, match="runs on cuda,tpu and this process computes on"):
        export.load(path)


@pytest.mark.fast
def test_a_program_that_is_not_what_the_manifest_says(copy, streaming):
    """Every file is intact, but they belong to two artifacts."""
    shutil.copy(streaming / "program.jax_export", copy)
    cases.replace_file(copy, "program.jax_export", (copy / "program.jax_export").read_bytes())
    with pytest.raises(export.ArtifactError, match="is none of kind window"):
        export.load(copy)


@pytest.mark.fast
def test_weights_that_are_not_the_programs(copy, tmp_path):
    data = export.save_weights(tmp_path / "w", {"a": jnp.zeros(2)}).read_bytes()
    cases.replace_file(copy, "weights.safetensors", data)
    with pytest.raises(export.ArtifactError, match=r"do not fit the program .*a is float32\[2\]"):
        export.load(copy)


FLOATS = jax.ShapeDtypeStruct((4,), jnp.float32)


def exported(function, *, targets=(), symbolic=False):
    checks = [jax_export.DisabledSafetyCheck.custom_call(target) for target in targets]
    shape = jax_export.symbolic_shape("n") if symbolic else (4,)
    given = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax_export.export(jax.jit(function), disabled_checks=checks)(given)


CALLBACK = "xla_ffi_python_cpu_callback"


def calling(target):
    """Program with a custom call: JAX refuses to export callbacks, an attacker names the target."""
    function = lambda x: jax.ffi.ffi_call(target, FLOATS)(x, index=np.uint64(0))  # noqa: E731
    return exported(function, targets=[target])


class Program:
    """Fake program with a text that JAX would not print."""

    def __init__(self, text, effects=()):
        self.text, self.ordered_effects, self.unordered_effects = text, effects, ()

    def mlir_module(self):
        return "stablehlo.add %0, %1\nstablehlo.custom_call @Sharding(%0)\n" + self.text


@pytest.mark.fast
@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.sort(x) + jax.lax.top_k(x, 1)[0].sum(),
        lambda x: jax.random.normal(jax.random.key(0), x.shape) * x,
        lambda x: jax.scipy.special.erf(x).cumsum(),
        lambda x: jax.lax.scan(lambda c, y: (c + y, c), 0.0, x)[1],
    ],
)
@pytest.mark.parametrize("symbolic", [False, True])
def test_operations_of_networks_may_pass(function, symbolic):
    check_program(exported(function, symbolic=symbolic), "this")


@pytest.mark.fast
@pytest.mark.parametrize("target", [CALLBACK, "lapack_spotrf_ffi", "tf.call_tf_function", "x"])
def test_a_call_of_anything_else_is_refused(target):
    with pytest.raises(export.ArtifactError, match=f"this is refused: .*{target}"):
        check_program(calling(target), "this")


@pytest.mark.fast
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('stablehlo.custom_call @"odd name"(%0)', "odd name"),
        ('"stablehlo.custom_call"(%0) <{call_target_name = "generic"}>', "generic"),
        ('"stablehlo.custom_call"(%0) <{}>', "without a name"),
        ('"stablehlo.outfeed"(%0, %1)', "outfeed"),
        ('"stablehlo.recv"(%0)', "recv"),
    ],
)
def test_every_way_of_printing_it_is_read(text, named):
    with pytest.raises(export.ArtifactError, match=named):
        check_program(Program(text), "this")


@pytest.mark.fast
def test_effects_are_refused():
    check_program(Program(""), "this")
    with pytest.raises(export.ArtifactError, match=r"\(effects\)"):
        check_program(Program("", effects=("a print",)), "this")


def test_an_artifact_with_such_a_program_is_refused_on_loading(copy):
    """The digests fit: an attacker changes the manifest too."""
    cases.replace_file(copy, "program.jax_export", calling(CALLBACK).serialize())
    with pytest.raises(export.ArtifactError, match="does more than arithmetic .*callback"):
        export.load(copy)
