"""Parts of a strategy that each layer takes: cuts, packing, scans; cures of the refusals."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, neurons, nn
from snnjax.memory import Strategy, parse_strategy
from snnjax.neurons.lif import lif_inverse, lif_state
from tests.nn.networks import FLAT, NETWORKS

DEPTH = memory.recompute(1)


@functools.cache
def written(name):
    return NETWORKS[name]()


def kinds(layers):
    return [layer.name for layer in layers]


# Where the outermost layers are cut: number of the layer, whether spikes are packed there, and
# whether a stack stands there alone.
BN = ["conv", "batchnorm", "lif"]
CUTS = {
    "vgg": (
        [*BN, "maxpool", *BN, *BN, "globalavgpool", "dropout", "linear"],
        {"": (0, 4, 7, 12), "pack": (0, 4, 7, 10)},
        {"pack": (0, 1, 1, 1)},
        (0, 0, 0, 0),
    ),
    "averaging": (
        [*BN, "avgpool", "conv", "lif", "avgpool", "flatten", "dropout", "linear"],
        {"": (0, 4, 9), "pack": (0, 3, 6)},
        {"pack": (0, 1, 1)},
        (0, 0, 0),
    ),
    "ms_resnet": (
        ["conv", "batchnorm", "stack", "residual", "lif", "globalavgpool", "linear"],
        {"": (0, 2, 3, 6), "pack": (0, 2, 3, 5)},
        {"pack": (0, 0, 0, 1)},
        (0, 1, 0, 0),
    ),
    "reversible": (
        ["conv", "reversible", "lif", "conv", "globalavgpool", "linear"],
        {"": (0, 1, 2, 3), "pack": (0, 1, 2, 3)},
        {"pack": (0, 0, 0, 1)},
        (0, 1, 0, 0),
    ),
    "shared": (
        ["linear", "lif", "shared", "linear"],
        {"": (0, 2, 3), "pack": (0, 2, 3)},
        {"pack": (0, 1, 1)},
        (0, 0, 0),
    ),
}


@pytest.mark.parametrize("pack", ["", "pack"])
@pytest.mark.parametrize("name", CUTS)
def test_cuts_fall_between_neurons_and_the_next_synapse_and_around_blocks(name, pack):
    """Packed, where the last spikes are: in front of the pool that ends them, not behind it."""
    network, (names, starts, spikes, alone) = written(name), CUTS[name]
    assert kinds(network.body.layers) == names
    joints = nn.with_memory(network, Strategy(depth=DEPTH, pack=bool(pack))).body.joints
    assert joints.scan == DEPTH
    assert joints.starts == starts[pack]
    assert joints.spikes == tuple(map(bool, spikes.get(pack, [0] * len(alone))))
    assert joints.alone == tuple(map(bool, alone))


PARALLEL = {
    "psn": lambda r: nn.PSN(4, rngs=r),
    "masked_psn": lambda r: nn.PSN(4, order=2, rngs=r),
    "sliding_psn": lambda r: nn.SlidingPSN(order=2),
    "reset_free_lif": lambda r: nn.ResetFreeLIF(),
}


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("name", PARALLEL)
def test_any_layer_that_fires_is_cut_behind(name, pack):
    """Of what is no `nn.Neuron` its answer is asked: spikes come out where none went in."""

    def joints(neuron):
        r = nnx.Rngs(0)
        first = (nn.Conv(2, 3, rngs=r), nn.BatchNorm(3), neuron(r), nn.AvgPool())
        second = (nn.Conv(3, 3, rngs=r), neuron(r), nn.Flatten(), nn.Linear(27, 3, rngs=r))
        network = nn.Network(nn.Sequential(*first, *second), (6, 6, 2))
        return nn.with_memory(network, Strategy(depth=DEPTH, pack=pack)).body.joints

    found = joints(PARALLEL[name])
    assert found == joints(lambda r: nn.LIF())
    assert len(found.starts) == 3 and any(found.spikes) == pack


@pytest.mark.parametrize("name", NETWORKS)
def test_packed_inputs_are_zeros_and_ones(name):
    """Of every layer that packs, and of every cut: inputs of all layers of one run."""
    network = nn.with_memory(written(name), Strategy(depth=DEPTH, pack="bfloat16"))
    layers, joints, seen = network.body.layers, network.body.joints, []
    frames = 1 + jax.random.normal(jax.random.key(0), (3, 2, *network.input_shape))
    starts = dict(zip(joints.starts, joints.spikes, strict=True))

    @jax.jit
    def inputs_of_layers(layers, inputs):
        state, every = network.initial_state(2), []
        for i, layer in enumerate(layers):
            every.append(inputs)
            own = nn.State(state.neurons[i], state.statistics[i])
            inputs, _ = layer(inputs, own, nn.Call(training=False))
        return every

    for i, (layer, inputs) in enumerate(zip(layers, inputs_of_layers(layers, frames), strict=True)):
        binary = bool(np.isin(inputs, (0, 1)).all())
        if starts.get(i) or getattr(layer, "pack", None) == "spikes":
            assert binary, f"layer {i}, {layer.name}"
            seen.append(i)
        if getattr(layer, "pack", None) == "bfloat16":
            assert not binary
    assert seen


def test_packing_within_the_blocks_of_a_stack():
    def behind(first, block):
        layers = first, nn.Stacked(block, 2, rngs=nnx.Rngs(0))
        network = nn.Network(nn.Sequential(*layers), (4,))
        return nn.with_memory(network, Strategy(pack=True)).body.layers[1].blocks.layers

    firing = lambda r: nn.Sequential(nn.Linear(4, 4, rngs=r), nn.LIF())  # noqa: E731
    assert behind(nn.LIF(), firing)[0].pack == "spikes"
    # The first block gets spikes, the second what the first one gives out.
    silent = lambda r: nn.Sequential(nn.LIF(), nn.Linear(4, 4, rngs=r), nn.LayerNorm(4, rngs=r))  # noqa: E731
    assert behind(nn.LIF(), silent)[1].pack == "spikes"
    current = lambda r: nn.Sequential(nn.Linear(4, 4, rngs=r), nn.LIF(), nn.LI())  # noqa: E731
    with pytest.raises(memory.StrategyError, match="no synapse"):
        behind(nn.LIF(), current)


@pytest.mark.parametrize(
    ("pack", "stored"),
    [
        (True, [None, "spikes", "spikes"]),
        ("spikes", [None, "spikes", "spikes"]),
        ("bfloat16", ["bfloat16", "spikes", "spikes"]),
        ("int8", ["int8", "spikes", "spikes"]),
    ],
)
def test_real_inputs_are_narrowed_only_where_asked_for_and_never_as_spikes(pack, stored):
    r = nnx.Rngs(0)
    layers = (nn.Conv(2, 3, rngs=r), nn.LIF(), nn.MaxPool(), nn.Conv(3, 3, rngs=r), nn.MaxPool())
    network = nn.Network(nn.Sequential(*layers), (6, 6, 2))
    packed = nn.with_memory(network, Strategy(pack=pack)).body.layers
    assert [packed[i].pack for i in (0, 2, 3)] == stored
    assert packed[4].pack is None, "a maximum is not narrowed: another element might win"


def test_dropout_that_scales_ends_spikes():
    def behind(rate):
        r = nnx.Rngs(0)
        layers = (nn.LIF(), nn.Dropout(rate), nn.Linear(4, 4, rngs=r))
        network = nn.Network(nn.Sequential(*layers), (4,))
        return nn.with_memory(network, Strategy(pack="int8")).body.layers[2].pack

    assert (behind(0.0), behind(0.5)) == ("spikes", "int8")


def scans(network):
    """The scans of its neurons, by the name of their class."""
    return {n.name: n.scan for _, n in nnx.iter_modules(network) if isinstance(n, nn.Neuron)}


def test_a_strategy_over_time_reaches_every_neuron_with_its_own_inverse():
    r = nnx.Rngs(0)
    branch = nn.Sequential(nn.Linear(4, 4, rngs=r), nn.LIF(decay=0.25))
    body = nn.Sequential(nn.IF(), nn.Residual(branch), nn.Grouped(nn.LI(decay=0.8), 2))
    network = nn.Network(body, (4,))
    found = scans(nn.with_memory(network, Strategy(time=memory.reversal())))
    assert {name: scan.refresh for name, scan in found.items()} == {
        "if": lif_inverse(decay=1.0).steps,
        "lif": lif_inverse(decay=0.25).steps,
        "li": lif_inverse(decay=0.8).steps,
    }
    found = scans(nn.with_memory(network, Strategy(time=memory.reversal(refresh=2))))
    assert {scan.refresh for scan in found.values()} == {2}
    every = memory.recompute(3)
    assert set(scans(nn.with_memory(network, Strategy(time=every))).values()) == {every}
    assert set(scans(network).values()) == {None}


def test_in_time_order_the_network_takes_the_strategy_over_time():
    network, scan = written("vgg in time"), memory.recompute(2)
    changed = nn.with_memory(network, Strategy(time=scan, depth=DEPTH))
    assert changed.time_scan == scan and network.time_scan is None
    assert changed.body.joints.scan == DEPTH and set(scans(changed).values()) == {None}
    layered = nn.with_memory(written("vgg"), Strategy(time=scan))
    assert layered.time_scan is None and set(scans(layered).values()) == {scan}


def of(*layers, shape=FLAT, **options):
    return nn.Network(nn.Sequential(*layers), shape, **options)


def linear():
    return nn.Linear(5, 5, rngs=nnx.Rngs(0))


REFUSALS = {
    "a whole network over time": (
        lambda: written("vgg in time"), "time=reverse",
        r'no inverse over time.*recompute\(every\), or order="layer"',
    ),
    "nothing reversible": (
        lambda: written("vgg"), "depth=reverse", r"nn.Reversible or nn.Stacked.*recompute\(every\)",
    ),
    "feedback": (
        lambda: written("recurrent"), "time=reverse", r"feedback have no inverse.*recompute\(every",
    ),
    "a shared membrane": (
        lambda: of(nn.Shared([linear() for _ in range(9)], nn.LIF(decay=0.25))), "time=reverse",
        r"update it 9 times per timestep.*accurate for 8 updates.*recompute\(every\)",
    ),
    "a hard reset": (
        lambda: of(nn.LIF(reset=neurons.reset.zero)),
        "time=reverse",
        "reset.*(CoupledLIF|recompute)",
    ),
    "a learned decay": (
        lambda: of(nn.LIF(learn=("decay",))), "time=reverse", r"learned.*recompute\(every\)",
    ),
    "a learned sigmoid": (lambda: of(nn.PLIF()), "time=reverse", r"learned.*recompute\(every\)"),
    "a decay that forgets": (
        lambda: of(nn.LIF(decay=1e-9)), "time=reverse", r"forgets.*recompute\(every\)",
    ),
    "a neuron of one's own": (
        lambda: of(nn.Neuron(neurons.Model(neurons.lif, neurons.LIFParams(0.5, 1.0), lif_state))),
        "time=reverse", r"neuron neurons offer no inverse.*recompute\(every\)",
    ),
    "no spikes": (lambda: of(linear(), nn.LI()), "pack=True", "as inputs; pack='bfloat16'"),
    "no synapses": (lambda: of(nn.LIF()), "pack=int8", "no synapse"),
    "no neurons": (lambda: of(linear()), "time=recompute(2)", "it has no neurons"),
    "no neurons for store": (lambda: of(linear()), "time=store", "it has no neurons"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_of_a_strategy_give_reason_and_cure(name):
    make, text, says = REFUSALS[name]
    with pytest.raises(memory.StrategyError, match=says):
        nn.with_memory(make(), parse_strategy(text))


def test_a_scan_of_ones_own_is_for_stacks():
    scan = lambda *a: memory.store(*a)  # noqa: E731
    with pytest.raises(memory.StrategyError, match="nn.Stacked"):
        nn.with_memory(written("vgg"), Strategy(depth=scan))
    layers = nn.with_memory(written("ms_resnet"), Strategy(depth=scan)).body.layers
    assert [layer.scan for layer in layers if isinstance(layer, nn.Stacked)] == [scan]


# The menu.


@pytest.mark.parametrize("name", NETWORKS)
def test_the_menu_offers_what_differs_and_is_admitted_what_is_written_first(name):
    network, offered = written(name), nn.candidates(written(name))
    assert offered[0] == Strategy()
    results = [nnx.graphdef(nn.with_memory(network, strategy)) for strategy in offered]
    assert len(set(results)) == len(results)
    assert any(strategy.depth for strategy in offered)
    assert any(strategy.time for strategy in offered) == (network.order == "time")


def test_the_menu_of_a_network_with_nothing_to_save_is_short():
    assert nn.candidates(nn.Network(linear(), FLAT)) == [Strategy()]
