"""Memory maps of compiled programs: freed in time, and a warning that names the cause."""

import jax
import jax.numpy as jnp
import pytest

from snnjax import memory, training
from snnjax.ops import programs

pytestmark = pytest.mark.skipif(not programs._LIMIT.exists(), reason="not on this system")


def compiled(number):
    """Jitted functions of different programs, each called once."""
    functions = [jax.jit(lambda x, n=n: jnp.sin(x @ x + n)) for n in range(number)]
    for function in functions:
        function(jnp.ones((4, 4)))
    return functions


def used():
    return programs._USED.read_bytes().count(b"\n")


@pytest.fixture
def limited(tmp_path, monkeypatch):
    """A function that sets the limit of the machine to a multiple of the used maps."""

    def limit(factor):
        (tmp_path / "limit").write_text(str(int(factor * used())))
        monkeypatch.setattr(programs, "_LIMIT", tmp_path / "limit")

    return limit


def test_programs_are_freed_above_half_of_the_limit_and_still_run(limited):
    functions = compiled(12)
    before = used()
    limited(4)
    programs.make_room()
    assert used() >= before - 8  # a quarter is used: nothing to do
    limited(1.5)
    programs.make_room()
    assert used() < before - 12
    assert functions[3](jnp.ones((4, 4))).shape == (4, 4)


def test_maps_that_cannot_be_freed_are_named_and_nothing_more_is_cached(limited):
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    limited(1)
    try:
        with pytest.warns(RuntimeWarning, match="memory maps are used.*vm.max_map_count"):
            programs.make_room()
        assert jax.config.jax_persistent_cache_min_compile_time_secs == float("inf")
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before)


@pytest.mark.parametrize("call", ["compile_step", "measure", "plan"])
def test_whatever_compiles_in_a_loop_makes_room(monkeypatch, call):
    calls = []
    for module in (memory.accounting, memory.budget, training.sharding):
        monkeypatch.setattr(module, "make_room", lambda: calls.append(1))
    if call == "compile_step":
        training.sharding.compile_step(lambda s, b: (s, b), training.sharding.make_mesh())
    elif call == "measure":
        memory.measure(jnp.sin, jnp.ones(2))
    else:
        memory.plan(lambda strategy: (jax.jit(jnp.sin), (jnp.ones(2),)), [memory.Strategy()])
    assert calls


def test_a_system_without_limits_needs_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(programs, "_LIMIT", tmp_path / "none")
    functions = compiled(2)
    before = used()
    programs.make_room()
    assert used() >= before and functions
