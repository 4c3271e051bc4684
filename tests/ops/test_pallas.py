"""Pallas kernels: tiling of neurons and back, and the choice of a kernel by device."""

import ast
import builtins
import json
import pathlib
import runpy

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import neurons, ops
from snnjax.neurons.lif import lif_state
from snnjax.neurons.lif_kernel import lif_kernel_packed
from snnjax.ops import pallas
from snnjax.ops.pallas import block_spec, tile, tiled_shape, untile
from tests.ops.lowering import KERNEL, lowered

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("shape", [(1,), (128,), (300,), (3, 1), (2, 257)])
def test_cut_and_put_together_again(shape):
    array = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    tiles = tile(array, 256)
    assert tiles.shape[:-2] == shape[:-1]
    assert (tiles.shape[-2] % 2, tiles.shape[-1]) == (0, 128)
    np.testing.assert_array_equal(untile(tiles, shape[-1]), array)
    np.testing.assert_array_equal(tiles.reshape(*shape[:-1], -1)[..., shape[-1] :], 0)


def test_neurons_that_fill_blocks_are_not_copied():
    def text(neurons):
        return str(jax.make_jaxpr(lambda a: tile(a, 128))(jnp.zeros((3, neurons))))

    assert "pad" not in text(256)
    assert "pad" in text(255)


def test_one_number_is_seen_by_every_program():
    one = tile(jnp.float32(3.0), 1024)
    spec = block_spec(one, 1024)
    assert one.shape == spec.block_shape == (1, 1)
    assert spec.index_map(5) == (0, 0)


def test_a_program_sees_its_neurons_over_all_timesteps():
    spec = block_spec(tiled_shape(16, jnp.uint8, timesteps=7, width=16), 1024)
    assert spec.block_shape == (7, 8, 16)
    assert spec.index_map(1) == (0, 1, 0)
    assert block_spec(tiled_shape(16, jnp.float32), 512).block_shape == (4, 128)


def choose(x, **options):
    def kernel(x, *, block, interpret, options):
        return x + block + (0 if options is None else 0.5) + (100 if interpret else 0)

    return pallas.by_device(kernel, lambda x: -x, x, **options)


def test_a_cpu_gets_the_plain_function_and_in_interpret_mode_the_kernel():
    x = jnp.float32(1.0)
    assert choose(x, block=2, interpret=False) == -1
    assert choose(x, block=2, interpret=True) == 103.5


def test_without_triton_a_gpu_gets_the_plain_function_too(monkeypatch):
    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if "pallas" in name:
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert pallas.gpu_options() is None
    text = lowered(lambda x: choose(x, block=2, interpret=False), ["cuda"], jnp.float32(1.0))
    assert "stablehlo.negate" in text
    assert "stablehlo.add" not in text


@pytest.mark.parametrize("platform", ["cpu", *KERNEL])
def test_the_kernel_is_in_the_program_of_its_device_only(platform):
    state, xs = lif_state((2, 512)), jnp.ones((3, 2, 512))

    def total(xs):
        after, (spikes, bits) = lif_kernel_packed(neurons.LIFParams(0.5, 1.0), state, xs)
        return jnp.sum(spikes) + jnp.sum(after.v), bits

    text = lowered(jax.grad(total, has_aux=True), [platform], xs)
    calls = text.count(KERNEL.get(platform, "custom_call"))
    assert calls == (0 if platform == "cpu" else 2)
    assert ("stablehlo.while" in text) == (platform == "cpu")


@pytest.mark.parametrize("platform", KERNEL)
def test_a_batch_of_derivatives_is_lowered_too(platform):
    def total(decay, xs):
        params, state = neurons.LIFParams(decay, 1.0), lif_state(xs.shape[1:])
        return jnp.sum(jnp.sin(neurons.lif_kernel(params, state, xs)[1]))

    pair = jax.vmap(jax.grad(total, (0, 1)))
    text = lowered(pair, [platform], jnp.full(2, 0.5), jnp.ones((2, 3, 2, 512)))
    assert text.count(KERNEL[platform]) == 2


def test_pallas_is_imported_when_a_kernel_is_called():
    for path in pathlib.Path(ops.__file__).parent.glob("*.py"):
        top = ast.parse(path.read_text()).body
        imports = [ast.unparse(n) for n in top if isinstance(n, ast.Import | ast.ImportFrom)]
        assert imports or path.name == "__init__.py"
        assert not [line for line in imports if "jax.experimental" in line]


def test_the_measuring_program_is_ready(monkeypatch, capsys):
    path = pathlib.Path(__file__).parents[2] / "experiments/benchmarks/lif_kernel.py"
    monkeypatch.setattr("sys.argv", [str(path), "--small", "--dtypes", "bfloat16"])
    runpy.run_path(str(path), run_name="__main__")
    actual = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert actual["interpreted"]
    (one,) = actual["results"]
    assert one["bytes"] == 16 * 4 * 2 * 300
    assert {"store", "lif_scan", "lif_kernel", "copy"} <= set(one["rows"])
    for row in (one["rows"][name] for name in ("store", "lif_kernel")):
        assert row["flipped"] == 0
        assert row["error"] < 1e-2  # a bfloat16 has 8 bits
        assert row["bandwidth"] == pytest.approx(one["bytes"] / row["seconds"])


def test_it_does_not_pretend_to_measure_a_kernel_where_there_is_none(monkeypatch, capsys):
    path = pathlib.Path(__file__).parents[2] / "experiments/benchmarks/lif_kernel.py"
    monkeypatch.setattr("sys.argv", [str(path)])
    with pytest.raises(SystemExit):
        runpy.run_path(str(path), run_name="__main__")
    assert "only --small" in capsys.readouterr().err
