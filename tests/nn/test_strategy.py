"""A strategy put into a network changes what is kept, and nothing else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, nn
from snnjax.nn.contract import stateless_result
from tests.compare import assert_close, assert_equal
from tests.nn.networks import NETWORKS, T, half, run

PACK, EACH = "pack=True", "depth=recompute(1), pack=True"
NAMED = "depth=recompute(1, keep=('currents',)), pack=True"
ROOT = "depth=recompute(sqrt), pack=True"
LEVELS = "depth=recompute(sqrt, inner=recompute(1)), pack=True"
STORE, UNPACKED = "depth=store, pack=True", "depth=recompute(2)"
STEPS, BOTH = "time=recompute(2)", "time=recompute(2), depth=recompute(1), pack=True"
REVERSE, UNDONE = "time=reverse", "depth=reverse, pack=True"
TIME_ROOT = "time=recompute(sqrt), pack=True"
TIME_LEVELS = "time=recompute(sqrt, inner=recompute(1)), pack=True"
TIME_THREE = "time=recompute(sqrt, inner=recompute(sqrt, inner=recompute(1))), pack=True"
TIME_WHOLE = "time=recompute(sqrt, inner=sequence), pack=True"
TIME_DEPTH = "time=recompute(sqrt), depth=recompute(1), pack=True"

_LAYER = (PACK, EACH, NAMED, ROOT, LEVELS, UNPACKED, STEPS, BOTH)
_TIME = (PACK, EACH, TIME_ROOT, TIME_LEVELS, TIME_THREE, TIME_WHOLE, TIME_DEPTH, STEPS, BOTH)
CASES = NETWORKS | {"recurrent in time": functools.partial(NETWORKS["recurrent"], order="time")}
TABLE = {
    "vgg": (*_LAYER, REVERSE),
    "averaging": (*_LAYER[1:], REVERSE),  # a mean of spikes is none, nothing to pack as it is
    "ms_resnet": (*_LAYER, REVERSE),
    "reversible": (*_LAYER, REVERSE, STORE, UNDONE),
    "recurrent": _LAYER,
    "grouped": (*_LAYER, REVERSE),
    "shared": _LAYER,
    "vgg in time": _TIME,
    "ms_resnet in time": _TIME,
    "recurrent in time": _TIME,
}
# Each row is a compilation: the default lane has what touches a network most, and of networks that
# are touched alike the smallest. tests/nn/test_stack.py and test_shared_membrane.py have the rest.
QUICK = {
    "vgg": (NAMED,),
    "averaging": (LEVELS, REVERSE),
    "reversible": (UNDONE,),
    "recurrent": (BOTH,),
    "grouped": (REVERSE,),
    "recurrent in time": (TIME_DEPTH,),
}
GROUPS, DECAY = 2, 0.5
FAN_IN = 3 * 3 * 4  # terms of the longest sum of a product
SPIKING = {"vgg": 3, "averaging": 2, "ms_resnet": 7, "reversible": 5, "grouped": 2}  # layers


@functools.cache
def written(name):
    return CASES[name]()


@functools.cache
def expected(name):
    return run(written(name))


def under(name, text):
    return nn.with_memory(written(name), memory.parse_strategy(text))


def table():
    for name, texts in TABLE.items():
        for text in texts:
            slow = () if text in QUICK.get(name, ()) else pytest.mark.slow
            yield pytest.param(name, text, id=f"{name}-{text}", marks=slow)


@pytest.mark.parametrize(("name", "text"), list(table()))
def test_nothing_but_what_is_kept_changes(name, text):
    """Outputs and states bit for bit. Statistics to their last bit, which XLA may round otherwise
    in another program; where a leak is undone, gradients to the rounding error as it has grown, of
    which each spiking layer adds its own.
    """
    gradients, (outputs, aux) = run(under(name, text))
    wanted, (values, expected_aux) = expected(name)
    epsilon = float(jnp.finfo(jnp.float32).eps)
    if text == TIME_WHOLE:
        # One large product may round otherwise than a small one per timestep.
        rounding = FAN_IN * epsilon
        assert_close((outputs, aux.state), (values, expected_aux.state), rounding)
    else:
        assert_equal((outputs, aux.state), (values, expected_aux.state))
    assert_close(aux.statistics, expected_aux.statistics, 1.5e-7)
    undone = T * (GROUPS if name == "grouped" else 1) if text == REVERSE else 0
    grown = 4 / 3 * SPIKING.get(name, 0) * epsilon / DECAY**undone if undone else 0
    assert_close(gradients, wanted, max(1e-6, grown))


@pytest.mark.parametrize("name", TABLE)
def test_the_table_holds_the_whole_menu(name):
    offered = {str(strategy) for strategy in nn.candidates(written(name))}
    assert offered - {"as written"} <= set(TABLE[name])
    assert len(offered) >= 5


# What the networks share, and what they do not.


def identities(network):
    return list(map(id, jax.tree.leaves(network)))


@pytest.mark.parametrize("name", TABLE)
def test_parameters_are_shared_and_the_original_stays_as_it_is(name):
    network = written(name)
    before, arrays = str(network), identities(network)
    for text in TABLE[name]:
        changed = under(name, text)
        assert str(changed) != before
        assert identities(changed) == arrays
    assert (str(network), identities(network)) == (before, arrays)


@pytest.mark.fast
@pytest.mark.parametrize("text", _LAYER)
def test_putting_a_strategy_in_again_changes_nothing_and_store_takes_it_back(text):
    plain, once = written("vgg"), under("vgg", text)
    strategy = memory.parse_strategy(text)
    assert nnx.graphdef(nn.with_memory(once, strategy)) == nnx.graphdef(once)
    depth = nn.with_memory(plain, memory.Strategy(depth=strategy.depth or memory.store))
    stored = nn.with_memory(depth, memory.Strategy(depth=memory.store))
    assert nnx.graphdef(stored) == nnx.graphdef(plain)
    assert nnx.graphdef(nn.with_memory(plain, memory.Strategy())) == nnx.graphdef(plain)


# A layer of one's own.


class Doubling(nnx.Module):
    """Twice a linear map; keeps spikes at its input as bits."""

    def __init__(self, rngs):
        self.linear, self.packs, self.heard = nn.Linear(4, 4, rngs=rngs), False, None

    def initial_state(self, shape):
        return nn.State()

    def __call__(self, inputs, state, call):
        linear = nn.replace(self.linear, pack="spikes" if self.packs else None)
        outputs, aux = linear(inputs, state, call.with_taps())
        return 2 * outputs, aux

    def with_memory(self, request):
        packs, strategy = request.strategy.pack and request.spiking, request.strategy
        taken = {"time"} if strategy.time else set()
        layer = nn.replace(self, packs=packs, heard=strategy)
        return nn.contract.Placed(layer, taken=frozenset(taken | {"pack"} if packs else taken))


class Keeping(Doubling):
    """Says that what it gives out are spikes if they came in: it passes them on."""

    def __call__(self, inputs, state, call):
        return stateless_result(inputs)

    def with_memory(self, request):
        return nn.contract.Placed(self, request.spiking)


def of_ones_own(layer, **options):
    r = nnx.Rngs(0)
    body = nn.Sequential(nn.Linear(5, 4, rngs=r), nn.LIF(), layer(r), nn.Linear(4, 3, rngs=r))
    return nn.Network(body, (5,), **options)


def test_a_layer_of_ones_own_takes_part():
    network, strategy = of_ones_own(Doubling), memory.Strategy(pack=True)
    packed = nn.with_memory(network, strategy)
    layers = packed.body.layers
    assert layers[2].packs and layers[2].heard == strategy and not network.body.layers[2].packs
    assert layers[3].pack is None, "behind it there are no spikes"
    for got, want in zip(run(packed), run(network), strict=True):
        assert_close(jax.tree.leaves(got), jax.tree.leaves(want), 1e-6)


@pytest.mark.fast
def test_a_layer_of_ones_own_passes_spikes_on():
    packed = nn.with_memory(of_ones_own(Keeping), memory.Strategy(pack=True))
    assert packed.body.layers[3].pack == "spikes"


@pytest.mark.fast
@pytest.mark.parametrize(("order", "heard"), [("layer", STEPS), ("time", "as written")])
def test_a_layer_of_ones_own_is_enough_to_take_a_strategy(order, heard):
    """In time order the network takes the strategy over time as a whole, and no layer does."""
    network = nn.Network(nn.Sequential(Doubling(nnx.Rngs(0))), (4,), order=order)
    changed = nn.with_memory(network, memory.parse_strategy(STEPS))
    assert str(changed.body.layers[0].heard) == heard
    with pytest.raises(memory.StrategyError, match="no neurons"):
        nn.with_memory(nn.Network(nn.Linear(4, 4, rngs=nnx.Rngs(0)), (4,)),
                       memory.parse_strategy(STEPS))  # fmt: skip


class Bare(Doubling):
    """A layer with the two methods of the contract only."""

    with_memory = None


PARTS = {
    "time": (memory.Strategy(time=memory.recompute(2)), "uses time .*no neurons"),
    "depth": (
        memory.Strategy(depth=memory.reversal()),
        "uses depth .*nn.Stacked blocks",
    ),
    "pack": (memory.Strategy(pack=True), "uses pack .*no synapse"),
}
TAKE_NO_DEPTH = {
    "lif": lambda: nn.LIF(),
    "psn": lambda: nn.PSN(4, rngs=nnx.Rngs(0)),
    "reset_free": lambda: nn.ResetFreeLIF(),
    "shared_scale": lambda: nn.SharedScale(nn.Linear(4, 4, use_bias=False, rngs=nnx.Rngs(0))),
    "one's own": lambda: Doubling(nnx.Rngs(0)),
}


@pytest.mark.fast
@pytest.mark.parametrize("part", PARTS)
def test_a_layer_without_the_protocol_takes_nothing(part):
    strategy, says = PARTS[part]
    network = nn.Network(nn.Sequential(Bare(nnx.Rngs(0))), (4,))
    assert network(jnp.ones((2, 1, 4)), network.initial_state(1), training=True)[0].shape == (
        2,
        1,
        4,
    )
    with pytest.raises(memory.StrategyError, match=says):
        nn.with_memory(network, strategy)


@pytest.mark.fast
@pytest.mark.parametrize("name", TAKE_NO_DEPTH)
def test_a_reversal_that_no_layer_takes_is_refused(name):
    """Not replaced by a recomputation: it would keep more than was asked for."""
    r = nnx.Rngs(0)
    body = nn.Sequential(nn.Linear(4, 4, rngs=r), TAKE_NO_DEPTH[name](), nn.Linear(4, 4, rngs=r))
    with pytest.raises(memory.StrategyError, match=PARTS["depth"][1]):
        nn.with_memory(nn.Network(body, (4,)), memory.Strategy(depth=memory.reversal()))


# What asks for the memory scheduler, and what is seen of a reversal.


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "text", "saves"),
    [
        ("vgg", "", False), ("vgg", PACK, False), ("vgg", "depth=store", False),
        ("vgg", "time=store", False), ("vgg", EACH, True), ("vgg", STEPS, True),
        ("vgg", REVERSE, True), ("vgg in time", "", False), ("vgg in time", STEPS, True),
        ("shared", STEPS, True), ("recurrent", STEPS, True), ("grouped", REVERSE, True),
        ("reversible", "", True), ("reversible", "depth=recompute(2)", True),
    ],
)  # fmt: skip
def test_strategies_that_recompute_save_memory(name, text, saves):
    assert nn.saves_memory(under(name, text)) == saves


def own_scan(step, params, state, xs):
    return memory.recompute(2)(step, params, state, xs)


class Counted:
    """A scan that keeps everything, and says so."""

    saves_memory = False

    def __call__(self, step, params, state, xs):
        return memory.store(step, params, state, xs)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("scan", "saves"), [(own_scan, True), (Counted(), False)], ids=["own", "counted"]
)
@pytest.mark.parametrize("name", ["vgg", "vgg in time", "recurrent", "shared"])
def test_a_scan_of_ones_own_is_asked(name, scan, saves):
    network = NETWORKS[name]()
    assert nn.saves_memory(nn.with_memory(network, memory.Strategy(time=scan))) == saves


@pytest.mark.fast
def test_a_layer_of_ones_own_may_hold_such_a_scan_under_any_name():
    class Own(nnx.Module):
        def __init__(self, scan):
            self.loop = scan

        def initial_state(self, shape):
            return nn.State()

        def __call__(self, inputs, state, call):
            return inputs, nn.Aux()

    class Saving(Counted):
        saves_memory = True

    assert nn.saves_memory(nn.Network(Own(Saving()), (2,)))
    assert not nn.saves_memory(nn.Network(Own(Counted()), (2,)))


@functools.partial(jax.jit, static_argnames="taps")
def tapped(network, inputs, *, taps):
    return network(inputs, network.initial_state(2), training=False, taps=taps)[1].taps


def test_the_error_of_what_is_rebuilt_is_tapped():
    r, inputs = nnx.Rngs(0), jnp.round(8 * jax.random.normal(jax.random.key(0), (6, 2, 4))) / 8
    leaky = nn.Sequential(nn.IF(), nn.Conv(2, 2, kernel=(1,), rngs=r), nn.LIF(decay=0.3))
    network = nn.Network(nn.Sequential(*leaky.layers, nn.LI(decay=1.0)), (4, 2))
    inputs = jnp.stack([inputs, inputs], -1)
    reversing = nn.with_memory(network, memory.parse_strategy(REVERSE))
    seen = tapped(reversing, inputs, taps=("reconstruction", "spikes"))
    errors = {name: kinds["reconstruction"] for name, kinds in seen.items()}
    assert all(error.shape == (1,) for error in errors.values())
    assert set(errors) == {"if0", "lif2", "li3"}
    assert errors["if0"] == 0 < errors["lif2"] < 1e-2
    assert "spikes" in seen["lif2"]
    assert tapped(reversing, inputs, taps=("spikes",)).keys() == seen.keys()
    for other in (network, nn.with_memory(network, memory.parse_strategy(STEPS))):
        assert tapped(other, inputs, taps=("reconstruction",)) == {}


def test_a_reversible_stack_is_rebuilt_without_error():
    stack = nn.Reversible(half, half, 2, rngs=nnx.Rngs(0))
    network = nn.Network(nn.Sequential(stack), (4, 4, 4))
    inputs = jax.random.normal(jax.random.key(0), (2, 2, 4, 4, 4))
    seen = tapped(network, inputs, taps=("reconstruction",))
    np.testing.assert_array_equal(seen["reversible0"]["reconstruction"], [0.0])
    floating = nn.Network(
        nn.Sequential(nn.Reversible(half, half, 2, rngs=nnx.Rngs(0), bits=None)), (4, 4, 4)
    )
    seen = tapped(floating, inputs, taps=("reconstruction",))
    assert 0 < seen["reversible0"]["reconstruction"] < 1e-5


@pytest.mark.fast
def test_a_stack_begins_its_part_whatever_lies_between_it_and_the_neurons():
    r = nnx.Rngs(0)
    stack = nn.Stacked(lambda r: nn.Residual(nn.Linear(4, 4, rngs=r)), 2, rngs=r)
    linear = functools.partial(nn.Linear, 4, 4, rngs=r)
    body = nn.Sequential(linear(), nn.LIF(), linear(), nn.LIF(), nn.Dropout(0.5), stack, nn.LIF())
    strategy = memory.Strategy(depth=memory.recompute(1), pack=True)
    joints = nn.with_memory(nn.Network(body, (4,)), strategy).body.joints
    assert joints.starts == (0, 2, 5, 6)
    assert joints.alone == (False, False, True, False)
    assert joints.spikes == (False, True, False, False)
