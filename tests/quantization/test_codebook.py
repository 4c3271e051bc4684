"""Refinement of codebooks: memory, duplicates, bounds, and the rule of an optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from snnjax.quantization import sub_bit
from snnjax.quantization.sub_bit import Codebook, refine_all, with_refinement
from tests.compare import assert_equal

KEY = jax.random.key(0)
refine = jax.jit(sub_bit.refine)  # eagerly, every operation would be compiled by itself


def book(tau=3, seed=0):
    return sub_bit.random_codebook(jax.random.key(seed), bits_per_kernel=tau)


@jax.jit
def _codes(codebook):
    return sub_bit.encode_patterns(sub_bit.used_patterns(codebook))


def codes(codebook):
    return np.asarray(_codes(codebook))


def test_it_starts_with_different_patterns_that_are_used():
    codebook = book(5)
    assert len(set(codes(codebook))) == 32
    assert_equal(codebook.latent, codebook.memory)
    assert_equal(sub_bit.used_patterns(codebook), codebook.latent)
    assert_equal(refine(codebook, KEY), codebook)


def test_small_latent_entries_keep_the_sign_that_was_told_last():
    latent = jnp.array([[1e-3, -1e-3, 9e-4, -9e-4, 0.0, 9e-4, -9e-4, 2.0, -0.5]])
    memory = jnp.array([[-1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0]])
    expected = [[1, -1, -1, 1, -1, 1, -1, 1, -1]]
    np.testing.assert_array_equal(sub_bit.used_patterns(Codebook(latent, memory)), expected)
    after = refine(Codebook(latent, memory), KEY)
    np.testing.assert_array_equal(after.memory, expected)
    np.testing.assert_array_equal(after.latent, latent)


def test_patterns_have_no_gradient_of_their_own():
    total = lambda q: jnp.sum(sub_bit.used_patterns(Codebook(q, q)))  # noqa: E731
    np.testing.assert_array_equal(jax.grad(total)(book().latent), 0)


def test_duplicates_become_patterns_from_outside_and_the_first_stands():
    codebook = book(4)
    latent = 0.5 * codebook.latent.at[jnp.array([3, 9, 12])].set(codebook.latent[1])
    doubled = Codebook(latent, codebook.memory)
    before = codes(doubled)
    seen = set()
    for seed in range(5):
        after = refine(doubled, jax.random.key(seed))
        replaced = codes(after)[[3, 9, 12]]
        assert len(set(codes(after))) == 16
        assert not set(replaced) & set(before)
        others = np.delete(np.arange(16), [3, 9, 12])
        np.testing.assert_array_equal(after.latent[others], latent[others])
        np.testing.assert_array_equal(
            after.latent[np.array([3, 9, 12])], sub_bit.decode_patterns(replaced)
        )
        seen |= set(replaced.tolist())
    assert len(seen) > 6  # other keys, other patterns


def test_a_book_of_one_pattern_over_and_over_becomes_one_of_all():
    latent = jnp.ones((512, 9))
    after = refine(Codebook(latent, latent), KEY)
    assert set(codes(after)) == set(range(512))


def test_latent_patterns_stay_within_three():
    codebook = Codebook(5 * book().latent, book().memory)
    np.testing.assert_array_equal(refine(codebook, KEY).latent, 3 * book().latent)


def test_every_codebook_of_a_tree_is_refined_stacked_ones_one_by_one():
    same = Codebook(jnp.ones((8, 9)), jnp.ones((8, 9)))
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), same)
    tree = {"a": same, "b": [jnp.arange(3.0), same], "c": stacked}
    after = jax.jit(refine_all)(tree, KEY)
    assert jax.tree.structure(after) == jax.tree.structure(tree)
    np.testing.assert_array_equal(after["b"][0], jnp.arange(3.0))
    books = [after["a"], after["b"][1], *(Codebook(*(x[i] for x in after["c"])) for i in range(2))]
    assert all(len(set(codes(one))) == 8 for one in books)
    assert len({tuple(codes(one)) for one in books}) == 4  # each with draws of its own


PARAMS = {"kernel": jnp.ones((2, 2)), "book": book()}
GRADIENT = jax.tree.map(jnp.ones_like, PARAMS)


def steps(rule, count, params=PARAMS):
    state, path, update = rule.init(params), [], jax.jit(rule.update)
    for _ in range(count):
        with jax.numpy_dtype_promotion("standard"):  # optax counts in integers, as in train_step
            updates, state = update(GRADIENT, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        path.append(params)
    return path, state


def test_a_codebook_rests_between_refinements_and_other_parameters_do_not():
    plain, _ = steps(optax.adam(0.1), 4)
    path, state = steps(with_refinement(optax.adam(0.1), key=KEY, every=2), 4)
    for ours, theirs in zip(path, plain, strict=True):
        np.testing.assert_array_equal(ours["kernel"], theirs["kernel"])
    assert_equal(path[0]["book"], PARAMS["book"])
    assert_equal(path[2]["book"], path[1]["book"])
    np.testing.assert_allclose(path[1]["book"].latent, PARAMS["book"].latent - 0.1, atol=1e-6)
    assert (path[3]["book"].latent < path[1]["book"].latent).all()
    assert state.count == 4


def test_patterns_move_at_a_speed_of_their_own():
    (after,), _ = steps(with_refinement(optax.sgd(0.1), key=KEY, every=1, speed=5), 1)
    np.testing.assert_allclose(after["book"].latent, PARAMS["book"].latent - 0.5, atol=1e-6)
    np.testing.assert_allclose(after["kernel"], 0.9, atol=1e-6)


def test_memory_is_moved_by_refinement_alone():
    """Its gradient and weight decay do not touch it."""
    rule = with_refinement(optax.adamw(0.6, weight_decay=0.1), key=KEY, every=1)
    (first, second), _ = steps(rule, 2)
    assert_equal(first["book"].memory, PARAMS["book"].memory)
    assert set(np.unique(second["book"].memory)) <= {-1.0, 1.0}
    assert (second["book"].memory != PARAMS["book"].memory).any()
    np.testing.assert_array_equal(second["book"].memory, sub_bit.used_patterns(second["book"]))


def test_duplicates_that_training_makes_are_replaced():
    rule = lambda key: with_refinement(optax.sgd(0.3), key=key, every=1)  # noqa: E731
    path, _ = steps(rule(KEY), 5)  # the gradient drives every entry to -1
    assert all(len(set(codes(params["book"]))) == 8 for params in path)
    assert len(set(codes(steps(optax.sgd(0.3), 5)[0][-1]["book"]))) == 1
    assert_equal(steps(rule(KEY), 5)[0][-1], path[-1])
    assert (
        codes(steps(rule(jax.random.key(1)), 5)[0][-1]["book"]) != codes(path[-1]["book"])
    ).any()


def test_errors_name_the_cure():
    with pytest.raises(ValueError, match="at least 1"):
        with_refinement(optax.sgd(0.1), key=KEY, every=0)
    with pytest.raises(ValueError, match="learn_codebook=False"):
        with_refinement(optax.sgd(0.1), key=KEY, speed=0)
    rule = with_refinement(optax.sgd(0.1), key=KEY)
    with pytest.raises(ValueError, match="params"):
        rule.update(GRADIENT, rule.init(PARAMS))
