"""Narrow networks of the authors' released code, in float64: spikes equal, numbers to 1e-9.

One test per golden file of a network that is here. Widths, depths and timesteps are read from the
arrays of the file, so that other files of the same networks need no other test.
"""

import functools
import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import losses, memory, models, neurons, nn, readout
from snnjax.models import released
from snnjax.models.t_revsnn import column_loss
from snnjax.nn.taps import in_order

BOUND = 1e-9
# Gradients and running statistics are stored in float32: half of its last place.
STORED = 2.0**-24
integrate_and_fire = functools.partial(nn.IF, reset=neurons.reset.detached(neurons.reset.zero))
as_released = functools.partial(nn.BatchNorm, unbiased=True)
# A norm inside a reversible block of the authors runs twice per step, at 0.9 each time.
twice_updated = functools.partial(nn.BatchNorm, unbiased=True, momentum=0.81)


def slow(name):
    """Name of a file that takes long, or whose family has a shorter one."""
    return pytest.param(name, marks=pytest.mark.slow)


class Golden:
    """Arrays of a golden file, in the layout of this library."""

    def __init__(self, folder, name):
        with np.load(folder / f"{name}.npz") as file:
            self.arrays = {key: file[key] for key in file.files}
        self.config = json.loads(str(self.arrays.pop("meta"))).get("config", {})
        self.weights = self.under("w/")

    def under(self, prefix):
        """Arrays whose names begin with the prefix, in order, in float64 where floating."""
        found = {k[len(prefix) :]: v for k, v in self.arrays.items() if k.startswith(prefix)}
        wide = lambda a: a.astype(np.float64) if a.dtype.kind == "f" else a  # noqa: E731
        return {name: wide(array) for name, array in found.items()}

    def gradients(self):
        """Gradients of all weights; 0 where the authors' forward pass does not use one."""
        grads = self.under("grad/")
        learned = {k: v for k, v in self.weights.items() if "running" not in k}
        return {name: grads.get(name, np.zeros_like(w)) for name, w in learned.items()}

    def images(self):
        """Image `[B, H, W, C]` or events `[B, T, H, W, C]`."""
        return jnp.asarray(np.moveaxis(self.arrays["x"], -3, -1), jnp.float64)

    def spikes(self, mode):
        """Spikes by the authors' names of their neurons, channels last."""
        for name, packed in self.under(f"{mode}/s/").items():
            shape = self.arrays[f"shape/{name}"]
            bits = np.unpackbits(packed, count=int(np.prod(shape))).reshape(shape)
            # [T, B, C, H, W], or [B, C, H, W] where each call is an array of its own.
            axis = 1 if "/" in name else 2
            if len(shape) == 4 and self.config.get("variant") == "cifar10":
                axis = -1  # tokens, [T, B, N, C]
            if name.endswith("talking_heads_lif"):  # [T, B, heads, 1, C / heads]
                bits = bits.reshape(*shape[:2], -1)
            yield name, np.moveaxis(bits, axis, -1)

    @property
    def timesteps(self):
        """T of the spikes, or of the logits of every timestep."""
        if self.arrays["x"].ndim == 5:
            return self.arrays["x"].shape[1]
        if self.arrays["eval/y"].ndim == 3:
            return len(self.arrays["eval/y"])
        return int(next(v[0] for k, v in self.arrays.items() if k.startswith("shape/")))

    @property
    def input_shape(self):
        """`(H, W, C)` of one frame."""
        channels, height, width = self.arrays["x"].shape[-3:]
        return height, width, channels

    def size(self, name):
        """Number of outputs of a layer of the authors."""
        return len(self.weights[f"{name}.weight"])

    def count(self, pattern, start=0):
        """Number of consecutive layers of this name."""
        names = "\n".join(self.weights)
        there = lambda n: re.search("^" + pattern.format(n), names, re.MULTILINE)  # noqa: E731
        return len(list(itertools.takewhile(there, itertools.count(start))))


def rev_resnet(golden, branch_norm=None):
    stages = range(1, 1 + golden.count(r"layer{}\.", 1))
    blocks = "layer{}.reversible_blocks."
    first = "layer{}.reversible_blocks.0.f_block.conv1.0"
    events = golden.arrays["x"].ndim == 5
    return models.rev_resnet(
        halves=[golden.size(first.format(s)) for s in stages],
        blocks=[golden.count(re.escape(blocks.format(s)) + r"{}\.") for s in stages],
        classes=golden.size("fc"),
        input_shape=golden.input_shape,
        events=events,
        static=not events,
        neuron=functools.partial(models.tau_lif, tau=golden.config.get("tau", 1.5))
        if events
        else integrate_and_fire,
        norm=as_released,
        branch_norm=branch_norm,
        bits=None,
        rngs=nnx.Rngs(0),
    )


def ms_resnet(golden):
    stages = range(1, 1 + golden.count(r"layer{}\.", 1))
    return models.ms_resnet(
        widths=[golden.size(f"layer{s}.0.conv1.0") for s in stages],
        blocks=[golden.count(rf"layer{s}\.{{}}\.") for s in stages],
        classes=golden.size("fc"),
        input_shape=golden.input_shape,
        events=golden.arrays["x"].ndim == 5,
        neuron=integrate_and_fire,
        spiking_shortcut="layer2.0.downsample.1.0.weight" in golden.weights,
        static=golden.arrays["x"].ndim == 4,
        norm=as_released,
        rngs=nnx.Rngs(0),
    )


def rev_sformer(golden, branch_norm=None):
    width = golden.size("patch_embed.block4_conv")
    return models.rev_sformer(
        depth=golden.count(r"block\.reversible_blocks\.{}\."),
        width=width,
        # The number of heads is no part of the arrays; the README of the files gives it.
        heads=golden.config.get("num_heads", 3),
        classes=golden.size("head"),
        input_shape=golden.input_shape,
        expansion=golden.size("block.reversible_blocks.0.g_block.mlp1_conv") // width,
        norm=as_released,
        branch_norm=branch_norm,
        bits=None,
        rngs=nnx.Rngs(0),
    )


def transformer_sizes(golden, mlp):
    """Options that Spikformer and the Spike-driven Transformer share."""
    width = golden.size("patch_embed.rpe_conv")
    tokens = golden.arrays["eval/out/patch_embed"].size // (
        golden.timesteps * len(golden.arrays["x"]) * width
    )
    return {
        "depth": golden.count(r"block\.{}\."),
        "width": width,
        "classes": golden.size("head"),
        "input_shape": golden.input_shape,
        # Each pool quarters the pixels.
        "pools": round(np.log2(np.prod(golden.input_shape[:2]) / tokens) / 2),
        "expansion": golden.size(f"block.0.mlp.{mlp}") // width,
        "norm": as_released,
        "rngs": nnx.Rngs(0),
    }


def spike_driven_transformer(golden):
    return models.spike_driven_transformer(**transformer_sizes(golden, "fc1_conv"))


def spikformer(golden):
    linear = "block.0.attn.q_linear.bias" in golden.weights
    return models.spikformer(
        heads=golden.config["num_heads"],
        bias=linear,
        **transformer_sizes(golden, "fc1_linear" if linear else "fc1_conv"),
    )


def sew_resnet(golden, join="add"):
    stages = range(1, 1 + golden.count(r"layer{}\.", 1))
    return models.sew_resnet(
        widths=[golden.size(f"layer{s}.0.conv1.0") for s in stages],
        blocks=[golden.count(rf"layer{s}\.{{}}\.") for s in stages],
        classes=golden.size("fc"),
        input_shape=golden.input_shape,
        join=join,
        norm=as_released,
        rngs=nnx.Rngs(0),
    )


def efficient_vgg(golden):
    widths = iter([golden.size(f"conv{i}") for i in range(1, 14)])
    stages = [list(itertools.islice(widths, n)) for n in (2, 2, 3, 3, 3)]
    return efficient(golden, "vgg16", stages, golden.size("classifier"))


def efficient_resnet(golden):
    counts = [golden.count(rf"layer{s}\.{{}}\.") for s in (1, 2, 3)]
    stages = [(golden.size(f"layer{s}.0.conv1"), n) for s, n in enumerate(counts, 1)]
    return efficient(golden, "resnet19", stages, golden.size("fc1"), stem=golden.size("conv1"))


def efficient(golden, architecture, stages, classes, **options):
    return models.efficient_lif_compat(
        architecture, stages=stages, classes=classes, input_shape=golden.input_shape,
        rngs=nnx.Rngs(0), **options,
    )  # fmt: skip


def asa_module(timesteps, channels, *, rngs, **options):
    del channels
    return nn.ASA(timesteps, rngs=rngs, **options)


def asa_reduction(golden, prefix="ConvAttLIFs.0.0.attn."):
    hidden = golden.weights.get(f"{prefix}fc.0.weight")
    return 1 if hidden is None else hidden.shape[1] // hidden.shape[0]


def asa_c(golden, mode="official_batch_union"):
    stages = golden.count(r"ConvAttLIFs\.{}\.")
    votes = golden.size("FCs.1.1.fc") // golden.arrays["eval/y"].shape[-1]
    return models.asa_snn_five(
        timesteps=golden.timesteps,
        classes=golden.size("FCs.1.1.fc") // votes,
        votes=votes,
        input_shape=golden.input_shape,
        channels=[golden.size(f"ConvAttLIFs.{i}.0.conv.0") for i in range(stages)],
        hidden=golden.size("FCs.0.1.fc"),
        attention=functools.partial(asa_module, mode=mode, reduction=asa_reduction(golden)),
        pool=nn.AvgPool,
        neuron=functools.partial(nn.LIF, decay=0.5, scale_input=True, reset=neurons.reset.zero),
        norm=as_released,
        rngs=nnx.Rngs(0),
    )


def t_revsnn(golden, columns=None):
    return models.t_revsnn(
        size="small",
        channels=[golden.size(f"subnet0.level{i}.blocks.0.dwconv1") for i in range(4)],
        kernel=golden.weights["subnet0.level0.blocks.0.dwconv1.weight"].shape[-1],
        columns=columns or golden.timesteps,
        heads="deep" if columns is None else "plain",
        classes=golden.size("cls_blocks.0.classifier.0"),
        input_shape=golden.input_shape,
        norm=as_released,
        rngs=nnx.Rngs(0),
    )


def rate_loss(outputs, labels):
    return losses.mean(losses.rate_cross_entropy(outputs, labels))


def asa_loss(outputs, labels):
    return losses.mean(losses.rate_mse(outputs, labels))


def columns_loss(outputs, labels):
    return losses.mean(column_loss(outputs, labels))


def place(make, layers, golden):
    """The network with the authors' weights, and its state before a batch."""
    # Drawing weights that are replaced costs compilations; zeros of one dtype infer shapes once.
    dtype = lambda leaf: np.float64 if leaf.dtype.kind == "f" else leaf.dtype  # noqa: E731
    zeros = lambda leaf: np.zeros(leaf.shape, dtype(leaf))  # noqa: E731
    network = jax.tree.map(zeros, jax.eval_shape(make))
    params, statistics = released.convert(network, layers, golden.weights)
    graphdef = nn.split(network)[0]
    constants = jax.jit(lambda: nn.split(make())[2])()
    network = nn.merge(graphdef, params, constants)
    batch = len(golden.arrays["label"])
    rest = jax.jit(lambda network, s: network.initial_state(batch, statistics=s))
    return network, rest(network, statistics)


def frames(golden, images):
    """Frames `[T, B, H, W, C]` of an image or of events."""
    if images.ndim == 5:
        return jnp.moveaxis(images, 1, 0)
    return jnp.broadcast_to(images, (golden.timesteps, *images.shape))


def run(golden, network, state, loss):
    """Evaluation, training step and gradients of a network here.

    Returns:
        `(outputs, aux)` in evaluation, the same in training, the loss, and gradients of parameters
        and image.
    """
    labels = jnp.asarray(golden.arrays["label"].astype(np.int32))

    @jax.jit
    def both(network, state, images):
        taps = ("spikes",)
        graphdef, params, constants = nn.split(network)

        def objective(params, images):
            net = nn.merge(graphdef, params, constants)
            outputs, aux = net(frames(golden, images), state, training=True, taps=taps)
            return loss(outputs, labels), (outputs, aux)

        evaluation = network(frames(golden, images), state, training=False, taps=taps)
        graded = jax.value_and_grad(objective, (0, 1), has_aux=True)
        (value, training), gradients = graded(params, images)
        return evaluation, training, value, gradients

    return both(network, state, golden.images())


def assert_stored(actual, expected):
    """Equal up to the float32 in which the file keeps gradients and statistics."""
    leaves = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    for a, b in leaves:
        scale = np.abs(b).max(initial=0)
        # A bias in front of a norm has a gradient of 0 up to rounding.
        np.testing.assert_allclose(a, b, rtol=STORED, atol=BOUND * scale + 1e-12)


def assert_spikes(golden, taps, mode):
    """Spikes of all neurons in the order of execution, q, k and v side by side here."""
    ours = [np.asarray(kinds["spikes"]) for kinds in in_order(taps).values()]
    ours = [a.reshape(*a.shape[:2], -1, a.shape[-1]) for a in ours]
    fired = 0
    for name, theirs in golden.spikes(mode):
        theirs = theirs.reshape(*theirs.shape[:2], -1, theirs.shape[-1])
        width = theirs.shape[-1]
        np.testing.assert_array_equal(ours[0][..., :width], theirs, err_msg=f"{mode} {name}")
        fired += theirs.sum()
        ours[0] = ours[0][..., width:]
        ours = ours if ours[0].size else ours[1:]
    assert not ours and fired


def assert_results(golden, network, layers, result, moved="once/"):
    """Outputs, loss, gradients and, where the file has them, running statistics."""
    (evaluated, _), (trained, aux), value, (gradients, image) = result
    for mode, outputs in (("eval", evaluated), ("train", trained)):
        expected = golden.arrays[f"{mode}/y"]
        outputs = outputs if outputs.shape == expected.shape else readout.rate(outputs)
        assert outputs.dtype == jnp.float64
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=BOUND * np.abs(expected).max())
    assert value == pytest.approx(float(golden.arrays["train/loss"]), rel=BOUND)
    expected, _ = released.convert(network, layers, golden.gradients())
    assert_stored(gradients, expected)
    assert_stored(image, np.moveaxis(golden.under("grad_x")[""], -3, -1))
    assert_statistics(golden, network, layers, aux.statistics, moved)


def assert_statistics(golden, network, layers, statistics, moved):
    """Running statistics after the step; a file may hold the means alone."""
    known = golden.under(moved)
    if not known:
        return
    everything = golden.weights | known
    _, expected = released.convert(network, layers, everything)
    # The same conversion of a mark per array tells which leaves the file has.
    marks = {n: np.full_like(a, n in known) for n, a in everything.items()}
    _, marked = released.convert(network, layers, marks)
    compared = [
        assert_stored(a, b)
        for a, b, mark in zip(*map(jax.tree.leaves, (statistics, expected, marked)), strict=True)
        if mark.all()
    ]
    assert len(compared) > 1


FAMILIES = {
    # Longer names first: the first one that a file begins with is its family.
    "rev_resnet": (rev_resnet, released.rev_resnet, rate_loss),
    "ms_resnet": (ms_resnet, released.ms_resnet, rate_loss),
    "rev_sformer": (rev_sformer, released.rev_sformer, rate_loss),
    "sdt": (spike_driven_transformer, released.spike_driven_transformer, rate_loss),
    "sew_resnet": (sew_resnet, released.sew_resnet, rate_loss),
    "spikformer": (spikformer, released.spikformer, rate_loss),
    "asa_c": (asa_c, released.asa_snn_five, asa_loss),
}


# rev_sformer and asa_c have the stem, the norms, reversible blocks, attention, both kinds of input
# and both losses of the slow ones; spikformer shares its stem and blocks with sdt and rev_sformer.
SEQUENCES = (
    *(slow("rev_resnet"), slow("rev_resnet_dvs"), slow("ms_resnet")),
    *(slow("ms_resnet_plain_shortcut"), "rev_sformer", "asa_c", "sdt", "sew_resnet"),
    *(slow("spikformer"), slow("spikformer_imagenet")),
)


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_released_network_is_reproduced(shared, x64, name):
    """Reversible blocks keep their activations; tests of their models compare the reversal."""
    golden = Golden(shared("golden", "systems"), name)
    build, read, loss = next(FAMILIES[f] for f in FAMILIES if name.startswith(f))
    layers = read(golden.weights)

    def make():
        store = memory.Strategy(depth=memory.store)
        network = build(golden)
        return nn.with_memory(network, store) if name.startswith("rev_") else network

    network, state = place(make, layers, golden)
    result = run(golden, network, state, loss)
    for (_, aux), mode in zip(result[:2], ("eval", "train"), strict=True):
        if any(key.startswith(f"{mode}/s/") for key in golden.arrays):
            assert_spikes(golden, aux.taps, mode)
    moved = "after/" if name.startswith("asa") else "once/"
    assert_results(golden, network, layers, result, moved)


@pytest.mark.slow
@pytest.mark.parametrize("join", ["and", "iand"])
def test_the_other_joins_of_a_released_sew_resnet_are_reproduced(shared, x64, join):
    """The same weights and image; the file has three gradients, and no statistics."""
    golden = Golden(shared("golden", "systems"), "sew_resnet")
    layers = released.sew_resnet(golden.weights)
    network, state = place(lambda: sew_resnet(golden, join), layers, golden)
    (evaluated, _), (trained, _), value, (gradients, _) = run(golden, network, state, rate_loss)
    known = golden.under(f"{join.upper()}/")
    for mode, outputs in (("eval", evaluated), ("train", trained)):
        np.testing.assert_allclose(readout.rate(outputs), known[f"{mode}/y"], rtol=0, atol=BOUND)
    assert value == pytest.approx(float(known["train/loss"]), rel=BOUND)
    # The other gradients are those of the sum: only the marked ones are compared.
    grads = {k.removeprefix("grad/"): a for k, a in known.items() if k.startswith("grad/")}
    everything = golden.gradients() | grads
    expected, _ = released.convert(network, layers, everything)
    marks = {n: np.full_like(a, n in grads) for n, a in everything.items()}
    marked, _ = released.convert(network, layers, marks)
    rows = zip(*map(jax.tree.leaves, (gradients, expected, marked)), strict=True)
    compared = [assert_stored(a, b) for a, b, mark in rows if mark.all()]
    assert len(compared) == len(grads) == 3


@pytest.mark.parametrize("name", [slow("rev_resnet"), "rev_sformer"])
def test_norms_inside_reversible_blocks_move_twice_on_request(shared, x64, name):
    """The authors' backward pass runs the norms again: their statistics move twice per step."""
    golden = Golden(shared("golden", "systems"), name)
    build, read, _ = FAMILIES[name]
    layers = read(golden.weights)
    network, state = place(lambda: build(golden, branch_norm=twice_updated), layers, golden)
    step = jax.jit(lambda net, state, x: net(x, state, training=True)[1].statistics)
    statistics = step(network, state, frames(golden, golden.images()))
    assert_statistics(golden, network, layers, statistics, "twice/")


def calls_of_shared_membranes(taps, groups):
    """Spikes `[B, H, W, C / G]` of every call of each membrane, in order: timesteps, layers, G."""
    layers = {}
    for name, kinds in in_order(taps).items():
        layers.setdefault(name.rpartition("/")[0], []).append(np.asarray(kinds["spikes"]))
    for own in layers.values():
        stacked = np.stack(own, 1)  # [T, L, B, H, W, C]
        cut = stacked.reshape(*stacked.shape[:-1], groups, -1)
        yield np.moveaxis(cut, -2, 2).reshape(-1, *cut.shape[2:-2], cut.shape[-1])


@pytest.mark.parametrize("name", [slow("eff_vgg16_both"), slow("eff_resnet19_both")])
def test_a_released_efficient_lif_net_is_reproduced(shared, x64, name):
    golden = Golden(shared("golden", "systems"), name)
    vgg = name.startswith("eff_vgg")
    read = released.efficient_lif_vgg if vgg else released.efficient_lif_resnet
    layers = read(golden.weights)
    make = efficient_vgg if vgg else efficient_resnet
    network, state = place(lambda: make(golden), layers, golden)
    result = run(golden, network, state, rate_loss)
    for (_, aux), mode in zip(result[:2], ("eval", "train"), strict=True):
        theirs = {}
        for call, spikes in golden.spikes(mode):
            theirs.setdefault(call.partition("/")[0], []).append(spikes)
        ours = list(calls_of_shared_membranes(aux.taps, groups=2))
        for calls, (membrane, expected) in zip(ours, theirs.items(), strict=True):
            np.testing.assert_array_equal(calls, np.stack(expected), err_msg=f"{mode} {membrane}")
        last = [leaf for leaf in jax.tree.leaves(aux.state) if leaf.ndim == 4]
        for leaf, expected in zip(last, golden.under(f"{mode}/v/").values(), strict=True):
            np.testing.assert_allclose(leaf, np.moveaxis(expected, 1, -1), rtol=0, atol=BOUND)
    assert_results(golden, network, layers, result, "after/")


@pytest.mark.parametrize("name", [slow("t_revsnn")])
def test_a_released_t_revsnn_is_reproduced(shared, x64, name):
    golden = Golden(shared("golden", "systems"), name)
    layers = released.t_revsnn(golden.weights)
    network, state = place(lambda: t_revsnn(golden), layers, golden)
    result = run(golden, network, state, columns_loss)
    assert_results(golden, network, layers, result)
    for (_, aux), mode in zip(result[:2], ("eval", "train"), strict=True):
        assert_states(golden, aux.state, mode, golden.timesteps - 1)
        rates = [np.asarray(kinds["spikes"]).mean() for kinds in aux.taps.values()]
        if mode == "train":
            # The last head fires on the last state, outside of the columns.
            rates.append((np.asarray(aux.state[-1]) >= 0.5).mean())
            expected = np.sort(golden.arrays["rates"])
            np.testing.assert_allclose(np.sort(rates), expected, rtol=0, atol=BOUND)
    # States of the other columns are the last ones of networks with fewer columns.
    for columns in range(1, golden.timesteps):
        there = re.compile(rf"subnet[{columns}-9]|cls_blocks\.[1-9]").match
        names = {n for n in golden.weights if not there(n)}
        make = functools.partial(t_revsnn, golden, columns)
        cut, state = place(make, released.t_revsnn(names), golden)
        step = jax.jit(lambda net, state, x: net(x, state, training=False)[1].state)
        states = step(cut, state, golden.images()[None])
        assert_states(golden, states, "eval", columns - 1)


def assert_states(golden, states, mode, column):
    for level, state in enumerate(states):
        expected = np.moveaxis(golden.arrays[f"{mode}/c{level}/{column}"][0], 1, -1)
        np.testing.assert_allclose(state, expected, rtol=0, atol=BOUND)


@pytest.mark.parametrize("prefix", ["", "alone"])
@pytest.mark.parametrize("name", ["asa_module"])
def test_a_released_asa_module_is_reproduced(shared, x64, name, prefix):
    golden = Golden(shared("golden", "systems"), name)
    for reduction in sorted({key.partition("/")[0] for key in golden.arrays}):
        part = golden.under(f"{reduction}/")
        weights = {k[2:]: v for k, v in part.items() if k.startswith("w/")}
        # Each example in a batch with a copy of itself is the mode of single examples.
        mode = "per_sample" if prefix else "official_batch_union"
        x, cotangent = (np.moveaxis(part[k], (1, 2), (0, -1)) for k in ("x", "ct"))
        reduced = weights["fc.0.weight"].shape if "fc.0.weight" in weights else (1, 1)
        layer = nn.ASA(len(x), reduction=reduced[1] // reduced[0], mode=mode, rngs=nnx.Rngs(0))
        graphdef, _, constants = nn.split(layer)
        layers = [released.asa(weights)]
        params, _ = released.convert(layer, layers, weights)

        @jax.jit
        def run(params, x, cotangent, graphdef=graphdef, constants=constants):
            def forward(params, x):
                module = nn.merge(graphdef, params, constants)
                return module(x, nn.State(), nn.Call(training=True))[0]

            y, pull = jax.vjp(forward, params, x)
            return y, pull(cotangent)

        y, (g_params, g_x) = run(params, x, cotangent)
        theirs = lambda key: np.moveaxis(part[key], (1, 2), (0, -1))  # noqa: B023, E731
        np.testing.assert_allclose(y, theirs(prefix or "y"), rtol=0, atol=BOUND)
        key = f"{prefix}_grad" if prefix else "grad"
        assert_stored(g_x, theirs(f"{key}_x"))
        grads = {n: part.get(f"{key}/{n}", np.zeros_like(w)) for n, w in weights.items()}
        assert_stored(g_params, released.convert(layer, layers, grads)[0])


def asa_arrays(timesteps):
    shapes = {
        "alpha": (1,), "beta": (1,), "fc.weight": (timesteps, timesteps),
        "conv1.weight": (1, 2, 3, 3), "conv2.weight": (1, 2, 3, 3),
    }  # fmt: skip
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def test_a_network_that_does_not_fit_is_refused_by_the_authors_name():
    layer, arrays = nn.ASA(4, rngs=nnx.Rngs(0)), asa_arrays(5)
    with pytest.raises(ValueError, match=r"fc.weight has the shape \[5, 5\]"):
        released.convert(layer, [released.asa(arrays)], arrays)
    with pytest.raises(ValueError, match="1 layers with parameters and the authors' 2"):
        released.convert(layer, [released.asa(arrays)] * 2, arrays)
    with pytest.raises(ValueError, match="mixer/1"):
        split = {"fc.0.weight": np.ones((2, 4)), "fc.2.weight": np.ones((4, 2))}
        released.convert(layer, [released.asa(split)], asa_arrays(4) | split)


@pytest.mark.parametrize("space", [None, (1, 4)])
def test_features_of_the_last_map_are_flattened_channels_last(space):
    rng = np.random.default_rng(0)
    arrays = {
        "ConvAttLIFs.0.0.conv.0.weight": rng.normal(size=(3, 2, 3, 3)),
        "FCs.0.1.fc.weight": rng.normal(size=(5, 12)),
    }
    kernel = released.asa_snn_five(arrays, space=space)[-2].params["kernel"].read(arrays)
    features = rng.normal(size=(3, *(space or (2, 2))))
    expected = arrays["FCs.0.1.fc.weight"] @ features.reshape(-1)
    np.testing.assert_allclose(np.moveaxis(features, 0, -1).reshape(-1) @ kernel, expected)
    with pytest.raises(ValueError, match="12 pixels|4 pixels"):
        released.asa_snn_five(arrays, space=(3, 3))
