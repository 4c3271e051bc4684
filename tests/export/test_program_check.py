"""Program check: programs that call out of XLA are refused before they run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

from snnjax import export
from snnjax.export.program_check import check_program
from tests.export import cases

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
def test_what_networks_are_made_of_may_pass(function, symbolic):
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
