"""Law 7: what leaves a neuron at t does not depend on what enters after t; exactly zero."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory
from tests.neurons.cases import NEURONS, case

T = 7
# Fire one step after the current at the earliest.
LATE = ("if_late", "spyx_lif", "srm", "srm_truncated")


def rows():
    """Every neuron scanned, and every whole-sequence function."""
    for name in NEURONS:
        made = case(name, T, dtype=jnp.float32)
        yield name, functools.partial(memory.store, made.step), made
        if made.sequence is not None:
            yield f"{name}_scan", made.sequence, made


ROWS = {name: (scan, made) for name, scan, made in rows()}


@functools.cache
def influences():
    """For each row the largest `|d output[t] / d input[t']|` over neurons, `[T, T']`."""

    @jax.jit
    def compute(inputs):
        influence = {}
        for name, (scan, made) in ROWS.items():
            run = functools.partial(scan, made.params, made.state)
            jacobian = jax.jacrev(lambda xs, run=run: jnp.sum(run(xs)[1], (1, 2)))(inputs[name])
            influence[name] = jnp.max(jnp.abs(jacobian), (2, 3))
        return influence

    return compute({name: made.xs for name, (_, made) in ROWS.items()})


@pytest.mark.parametrize("name", ROWS)
def test_the_future_has_no_influence_on_the_past(name):
    influence = np.asarray(influences()[name])
    assert np.all(np.triu(influence, 1) == 0)
    late = int(name in LATE)
    assert np.all(np.diagonal(influence, -late) > 0)
    assert np.all(influence[-1, : T - late] > 0), "the past has no influence on the present"
