"""The LIF kernels by themselves: what they write, and that they are lowered for GPUs and TPUs.

Their values are compared with the scan in `tests/neurons/test_lif_kernel.py`.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import surrogate
from snnjax.ops import pallas, pallas_lif
from tests.compare import assert_equal
from tests.ops.lowering import KERNEL, lowered

pytestmark = pytest.mark.fast
T, N = 5, 300


class Dynamics(NamedTuple):
    """A LIF with reset by subtraction, in the simplest words."""

    spike: surrogate.Surrogate = surrogate.arctan()

    def charge(self, decay, v, x):
        return decay * v + x

    def fire(self, threshold, h):
        spikes = self.spike(h - threshold)
        return h - spikes * threshold, spikes

    def gain(self, decay):
        return 1

    def slope(self, decay, v, h):
        return v


def arrays(neurons=N):
    rng = np.random.default_rng(0)
    v, xs = rng.normal(0, 0.4, neurons), rng.normal(0.5, 0.8, (T, neurons))
    return [jnp.asarray(a, jnp.float32) for a in (0.5, 0.7, v, xs)]


def by_loops(decay, threshold, v, xs):
    """The last membranes, spikes and membranes before the reset, one neuron after the other."""
    spikes, hs, last = np.zeros_like(xs), np.zeros_like(xs), np.array(v)
    for n in range(len(last)):
        for t, x in enumerate(xs[:, n]):
            hs[t, n] = decay * last[n] + x
            spikes[t, n] = hs[t, n] >= threshold
            last[n] = hs[t, n] - spikes[t, n] * threshold
    return last, spikes, hs


run = functools.partial(pallas_lif.forward, Dynamics(), block=128, interpret=True)


@pytest.mark.parametrize("writes", [(), ("membranes", "spikes"), ("spikes", "bits", "membranes")])
def test_it_writes_what_it_is_asked_for(writes):
    made = arrays()
    last, *written = run(*made, writes=writes)
    expected, spikes, hs = by_loops(*(np.asarray(a) for a in made))
    possible = {"spikes": spikes, "membranes": hs, "bits": np.packbits(spikes != 0, axis=1)}
    np.testing.assert_allclose(last, expected, atol=1e-6)
    for name, array in zip(writes, written, strict=True):
        assert array.dtype == possible[name].dtype
        np.testing.assert_allclose(array, possible[name], atol=1e-6)


@pytest.mark.parametrize("neurons", [8, 129])
def test_the_last_byte_of_a_timestep_is_filled_up_with_zeros(neurons):
    decay, _, v, xs = arrays(neurons)
    _, bits = run(decay, jnp.float32(-9.0), v, xs, writes=("bits",))  # everything fires
    np.testing.assert_array_equal(bits, np.packbits(np.ones((T, neurons), bool), axis=1))


def test_cotangents_take_the_place_of_others_but_in_copies_of_what_is_still_needed():
    decay, threshold, v, xs = arrays(256)
    hs, g = run(decay, threshold, v, xs, writes=("membranes",))[1], jnp.sin(xs)
    back = functools.partial(pallas_lif.backward, Dynamics(), block=128, interpret=True)

    @jax.jit
    def both(g):
        return back(decay, threshold, v, hs, v, g)[1], g

    before = np.array(g)
    np.testing.assert_array_equal(both(g)[1], before)
    np.testing.assert_array_equal(g, before)
    pair = back(decay, threshold, v, hs, v, g, parameters=False)
    assert_equal(pair, back(decay, threshold, v, hs, v, g)[:2])


def test_a_block_that_no_device_takes_is_refused():
    for block in (0, 64, 1000, -128):
        with pytest.raises(ValueError, match="power of two"):
            pallas_lif.forward(Dynamics(), *arrays(), block=block)


def lower(platform, dtype, spike, block=1024, bits=True):
    """The texts of the forward and of the backward kernel."""
    options = None if platform == "tpu" else pallas.gpu_options()
    rest = {"block": block, "options": options}
    number, neurons = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((), (3 * 1024 - 5,)))
    sequence, hs = (jax.ShapeDtypeStruct((T, 3 * 1024 - 5), d) for d in (dtype, jnp.float32))
    writes = ("spikes", "membranes", "bits")[: 3 if bits else 2]
    forward = functools.partial(pallas_lif.forward, Dynamics(spike), writes=writes, **rest)
    backward = functools.partial(pallas_lif.backward, Dynamics(spike), **rest)
    return (
        lowered(forward, [platform], number, neurons, neurons, sequence),
        lowered(backward, [platform], number, neurons, neurons, hs, neurons, sequence),
    )


SPIKES = [getattr(surrogate, n)() for n in surrogate.__all__ if n[0].islower() and n != "strict"]


@pytest.mark.parametrize("platform", KERNEL)
def test_it_is_lowered_for_a_device_that_is_not_there(platform):
    """By JAX, with what its rules refuse; what the device's own compiler says is not known."""
    if platform != "tpu" and pallas.gpu_options() is None:
        pytest.skip("this JAX has no Triton, which kernels are compiled with for GPUs")
    cases = [(dtype, SPIKES[0]) for dtype in (jnp.float32, jnp.bfloat16, jnp.float16)]
    others = SPIKES[1:] if platform != "rocm" else []
    for dtype, spike in itertools.chain(cases, ((jnp.float32, s) for s in others)):
        for text in lower(platform, dtype, spike, bits=platform != "tpu"):
            assert text.count(KERNEL[platform]) == 1
