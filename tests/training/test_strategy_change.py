"""A run goes on under another memory strategy: parameters, slots and checkpoints are the same."""

import dataclasses

import jax

from snnjax import memory, training
from tests.training.conftest import assert_same_bits, make


def test_a_run_under_store_goes_on_under_recompute_to_the_same_bits(tmp_path):
    store = training.prepare(make(memory="depth=store", batch=64))
    lean = training.prepare(dataclasses.replace(
        store.experiment, memory=memory.Strategy(depth=memory.recompute(1), pack=True)
    ))  # fmt: skip
    assert store.program.graphdef != lean.program.graphdef

    def steps(session, state, first):
        for number in range(first, first + 3):
            batch = training.sharding.feed(session.loader, number, session.mesh)
            state, _ = session.train(state, batch)
        return state

    after = steps(store, training.sharding.place(store.state, store.mesh), 0)
    path = training.checkpoints.save(tmp_path, after)
    resumed = training.checkpoints.load(path, lean.state)
    assert_same_bits(resumed, after)
    assert jax.tree.structure(resumed) == jax.tree.structure(after)
    assert_same_bits(steps(lean, resumed, 3), steps(store, after, 3))
