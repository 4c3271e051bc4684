"""EfficientLIF-Net: exact sizes, what sharing changes and what not, and what a gradient keeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from snnjax import memory, nn
from snnjax.models import efficient_lif as models
from snnjax.surrogate import arctan
from tests.compare import assert_close, assert_equal
from tests.models.sizes import count

T, B, CLASSES = 2, 3, 5
SHARING = ("none", "channel", "layer", "both")
IMAGE, FEATURES = (8, 8, 2), (6,)


def parameters(net):
    return jax.tree.leaves(nnx.split(net, nnx.Param, ...)[1])


def elements(net, batch=1):
    """Membrane elements of a network, from the shapes of its state."""
    state = jax.eval_shape(lambda net: net.initial_state(batch), net)
    return sum(leaf.size for leaf in jax.tree.leaves(state.neurons))


# Sizes of the released code, counted from its layer shapes.

COMPAT = {
    ("vgg16", "none"): (15_795_594, 15_841_764, 473_088),
    ("vgg16", "channel"): (14_910_346, 14_956_516, 203_776),
    ("vgg16", "layer"): (14_910_346, 14_956_516, 321_536),
    ("vgg16", "both"): (14_910_346, 14_956_516, 160_768),
    ("resnet19", "none"): (12_585_866, 12_632_036, 458_752),
    ("resnet19", "channel"): (26_108_042, 26_154_212, 376_832),
    ("resnet19", "layer"): (26_108_042, 26_154_212, 237_568),
    ("resnet19", "both"): (26_108_042, 26_154_212, 118_784),
}
OURS = {
    "vgg": (models.efficient_lif_vgg, 14_910_346, 14_956_516),
    "resnet": (models.efficient_lif_resnet, 26_108_042, 26_154_212),
}
MEMBRANES = {
    ("vgg", "none"): 407_552,
    ("vgg", "channel"): 203_776,
    ("vgg", "layer"): 190_464,
    ("vgg", "both"): 95_232,
    ("resnet", "none"): 753_664,
    ("resnet", "channel"): 376_832,
    ("resnet", "layer"): 237_568,
    ("resnet", "both"): 118_784,
}


@pytest.mark.parametrize(("architecture", "variant"), COMPAT)
def test_the_released_networks(architecture, variant):
    ten, hundred, membranes = COMPAT[architecture, variant]
    make = functools.partial(models.efficient_lif_compat, architecture, variant=variant)
    net = jax.eval_shape(lambda: make(classes=10, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in parameters(net)) == ten
    assert count(lambda: make(classes=100, rngs=nnx.Rngs(0))) == hundred
    assert elements(net) == membranes


def resets(net):
    """Membrane after the reset of h = 1.5, by layer: 0.5 is soft, 0 is hard."""
    cells = [m for _, m in nnx.iter_modules(net) if isinstance(m, nn.Neuron)]
    half = jnp.asarray(1.5)
    return [dict(cell.step.options)["reset"](half, jnp.ones(()), 1.0).item() for cell in cells]


def test_the_released_networks_mix_resets():
    def found(architecture, variant):
        make = lambda: models.efficient_lif_compat(  # noqa: E731
            architecture, variant=variant, rngs=nnx.Rngs(0)
        )
        return resets(jax.eval_shape(make))

    assert found("vgg16", "none") == [0.0] * 13
    assert found("vgg16", "layer") == [0.5, 0.0, 0.5, 0.5, 0.5, 0.5]
    assert found("vgg16", "both") == [0.5] * 6
    assert found("vgg16", "channel") == [0.5] * 13
    assert found("resnet19", "none") == [0.0] * 17
    assert found("resnet19", "layer") == [0.5] * 4


@pytest.mark.fast
@pytest.mark.parametrize(("family", "sharing"), MEMBRANES)
def test_one_network_whatever_is_shared(family, sharing):
    """The same parameters under every sharing, and membranes of the table at 32x32."""
    make, ten, _ = OURS[family]
    build = lambda **o: jax.eval_shape(lambda: make(sharing=sharing, rngs=nnx.Rngs(0), **o))  # noqa: E731
    net = build()
    assert sum(leaf.size for leaf in parameters(net)) == ten
    assert elements(net) == MEMBRANES[family, sharing]
    if sharing in ("channel", "both"):
        assert elements(build(groups=4)) == MEMBRANES[family, sharing] // 2


@pytest.mark.parametrize("family", OURS)
def test_a_hundred_classes(family):
    make, _, hundred = OURS[family]
    assert count(lambda: make(classes=100, rngs=nnx.Rngs(0))) == hundred


# What sharing does to the values.

STAGES, BLOCKS = ((4, 4), (4, 4)), ((4, 2), (8, 1))
SMALL = {
    "vgg": functools.partial(models.efficient_lif_vgg, stages=STAGES, input_shape=IMAGE),
    "resnet": functools.partial(
        models.efficient_lif_resnet, stages=BLOCKS, stem=4, input_shape=IMAGE
    ),
    "har": functools.partial(models.efficient_lif_har, FEATURES, hidden=8, depth=3),
}


def build(family, **options):
    return SMALL[family](classes=CLASSES, rngs=nnx.Rngs(0), **options)


def frames(net, *, timesteps=T, static=True, batch=B):
    """A still image; windows of sensors move."""
    count = 1 if static and len(net.input_shape) > 1 else timesteps
    x = 2 * jax.random.normal(jax.random.key(1), (count, batch, *net.input_shape))
    return jnp.broadcast_to(x, (timesteps, *x.shape[1:]))


@functools.partial(jax.jit, static_argnames="training")
def graded(net, x, state, *, training=True):
    def loss(net, x):
        outputs, aux = net(x, state, training=training, key=jax.random.key(2))
        return jnp.mean(outputs**2), (outputs, aux)

    return jax.grad(loss, (0, 1), has_aux=True)(net, x)


def run(net, x):
    gradients, seen = graded(net, x, nn.contract.repeat_state(net.initial_state(x.shape[1])))
    return jax.tree.leaves(gradients), seen


@pytest.mark.parametrize("family", SMALL)
def test_sharing_changes_no_weight(family):
    """The same initial weights from one seed, so that twins start equal."""

    def sums(sharing):
        found = parameters(build(family, sharing=sharing))
        return sorted((leaf.shape, float(jnp.sum(leaf))) for leaf in found)

    for sharing in SHARING[1:]:
        assert sums(sharing) == sums("none")


@pytest.mark.parametrize("family", [pytest.param("vgg", marks=pytest.mark.slow), "har"])
def test_one_channel_group_is_no_sharing_bit_for_bit(family):
    plain = build(family, sharing="none")
    gradients, (outputs, _) = run(build(family, sharing="channel", groups=1), frames(plain))
    expected, (wanted, _) = run(plain, frames(plain))
    assert_equal(outputs, wanted)
    assert_equal(gradients, expected)


@pytest.mark.slow
def test_a_stage_of_one_layer_is_no_sharing():
    make = functools.partial(
        models.efficient_lif_vgg, stages=((4,), (6,)), input_shape=IMAGE, classes=CLASSES
    )
    shared, plain = (make(sharing=s, rngs=nnx.Rngs(0)) for s in ("layer", "none"))
    gradients, (outputs, _) = run(shared, frames(plain))
    expected, (wanted, _) = run(plain, frames(plain))
    assert_close(outputs, wanted, 1e-6)
    largest = sorted(float(jnp.abs(g).max()) for g in gradients)
    assert_close(
        np.array(largest), np.array(sorted(float(jnp.abs(g).max()) for g in expected)), 1e-4
    )


# The long scan.


def standardized(x):
    """Batch norm of one timestep, without parameters: keeps float64."""
    axes = tuple(range(x.ndim - 1))
    centred = x - x.mean(axes)
    return 2 * centred / jnp.sqrt(jnp.square(centred).mean(axes) + 1e-5)


def norm(channels):
    del channels
    return nn.Fold(standardized)


def convolved(x, layer, strides=1):
    kernel = layer.function.kernel[...]
    numbers = ("NHWC", "HWIO", "NHWC")
    # Half the kernel on every side, at stride 2 too, as the released code has it.
    pads = [(n // 2, n // 2) for n in kernel.shape[:2]]
    maps = lax.conv_general_dilated(x, kernel, (strides, strides), pads, dimension_numbers=numbers)
    return standardized(maps)


def called(v, x, groups):
    """Every channel group in turn: h = v / 4 + 3 x / 4, soft detached reset."""
    spikes = []
    for part in jnp.split(x, groups, axis=-1):
        h = 0.25 * v + 0.75 * part
        s = arctan()(h - 1)
        v = h - lax.stop_gradient(s)
        spikes.append(s)
    return v, jnp.concatenate(spikes, -1)


def pooled(x):
    b, h, w, c = x.shape
    tiles = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    tiles = tiles.reshape(b, h // 2, w // 2, 4, c)
    first = jnp.argmax(tiles, 3, keepdims=True)  # among equal ones the first in reading order
    return jnp.take_along_axis(tiles, first, 3)[..., 0, :]


def long_vgg(net, image, groups):
    """The K G T calls of each stage in order, by another convolution, pool and norm."""
    layers = net.body.layers
    stages = [layer for layer in layers if isinstance(layer, nn.Shared)]
    vs, outputs = [0.0] * len(stages), []
    for _ in range(T):
        x = image
        for i, stage in enumerate(stages):
            x = pooled(x) if i else x
            for synapse in stage.synapses:
                synapse = synapse.layer if isinstance(synapse, nn.StaticInput) else synapse
                current = convolved(x, synapse.layers[0])
                vs[i], x = called(vs[i], current, groups)
        outputs.append(readout(layers[-1], x))
    return jnp.stack(outputs)


def long_resnet(net, image, groups):
    layers = net.body.layers
    stem, *stages = [layer for layer in layers if isinstance(layer, nn.Shared)]
    vs, outputs = [0.0] * (1 + len(stages)), []
    for _ in range(T):
        current = convolved(image, stem.synapses[0].layer.layers[0])
        vs[0], x = called(vs[0], current, groups)
        for i, stage in enumerate(stages, 1):
            for first in range(0, len(stage.synapses), 2):
                strides = 1 if first else 2
                block = x
                current = convolved(x, stage.synapses[first].layers[0], strides)
                vs[i], x = called(vs[i], current, groups)
                current = convolved(x, stage.synapses[first + 1].layers[0])
                way = stage.shortcuts[first + 1].layers
                current += convolved(block, way[0], strides) if len(way) else block
                vs[i], x = called(vs[i], current, groups)
        outputs.append(readout(layers[-1], x))
    return jnp.stack(outputs)


def readout(linear, x):
    return x.mean((1, 2)) @ linear.function.kernel[...] + linear.function.bias[...]


WAYS = {
    "store": None,
    "recompute": memory.Strategy(time=memory.recompute(T)),
    "reverse": memory.Strategy(time=memory.reversal()),
    "depth": memory.Strategy(depth=memory.recompute(1), pack=True),
    "levels": memory.Strategy(
        time=memory.recompute("sqrt", inner=memory.recompute(1)),
        depth=memory.recompute(1),
        pack=True,
    ),
}
LONG = {"vgg": long_vgg, "resnet": long_resnet}
ROWS = [
    pytest.param("vgg", "depth", 2),
    *(
        pytest.param(f, way, g, marks=pytest.mark.slow)
        for f, way, g in (
            ("vgg", "store", 2), ("vgg", "levels", 1), ("vgg", "reverse", 2),
            ("vgg", "recompute", 2), ("resnet", "store", 2),
            ("resnet", "recompute", 2), ("resnet", "levels", 1), ("resnet", "depth", 2),
        )
    ),
]  # fmt: skip


@functools.cache
def expected_of(family, groups):
    net = wide(build(family, sharing="both" if groups > 1 else "layer", groups=groups, norm=norm))
    image = frames(net)[0].astype(jnp.float64)

    def loss(net):
        outputs = LONG[family](net, image, groups)
        return jnp.mean(outputs**2), outputs

    return jax.jit(jax.grad(loss, has_aux=True))(net)


def wide(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


@pytest.mark.parametrize(("family", "way", "groups"), ROWS)
def test_the_gradient_is_that_of_the_long_scan(family, way, groups, x64):
    """Float64, relative 1e-12; where a leak is undone, its roundings grow 4^4-fold."""
    sharing = "both" if groups > 1 else "layer"
    net = build(family, sharing=sharing, groups=groups, norm=norm, memory=WAYS[way])
    x, state = frames(net).astype(jnp.float64), wide(net.initial_state(B))
    net = wide(net)
    (gradients, _), (outputs, _) = graded(net, x, state)
    wanted, wanted_outputs = expected_of(family, groups)
    assert float(jnp.abs(outputs).max()) > 0
    assert_close(outputs, wanted_outputs, 1e-12)
    assert_close(
        jax.tree.leaves(gradients), jax.tree.leaves(wanted), 1e-11 if way == "reverse" else 1e-12
    )


# What the backward pass keeps.

STEPS, NARROW = 5, ((4, 4), (4, 4), (8,) * 3, (16,) * 3, (16,) * 3)  # VGG16, widths / 32


def narrow(**options):
    return models.efficient_lif_vgg(stages=NARROW, classes=CLASSES, rngs=nnx.Rngs(0), **options)


def started(net):
    """A state that is nowhere at rest, so that membranes are told from zeros."""
    state = nn.contract.repeat_state(net.initial_state(1))
    keys = iter(jax.random.split(jax.random.key(3), 99))
    draw = lambda v: jax.random.uniform(next(keys), v.shape)  # noqa: E731
    return state._replace(neurons=jax.tree.map(draw, state.neurons))


@jax.jit
def residuals_of(net, x, state):
    """Residuals of `jax.vjp`."""
    return jax.vjp(lambda *a: a[0](a[1], a[2], training=True)[0], net, x, state)[1]


@functools.partial(jax.jit, static_argnames="groups")
def known(net, x, state, groups):
    """All membranes there are: before the first call, after each, and before each reset."""
    taps = net(x, state, training=True, taps=("spikes", "membrane"))[1].taps
    found = list(jax.tree.leaves(state.neurons))
    for kinds in taps.values():
        v, s = kinds["membrane"], kinds["spikes"]
        found += [part for a in (v, v + s) for part in jnp.split(a, groups, axis=-1)]
    return found


def membranes_kept(net, groups):
    """Bytes of the residuals whose every row is a membrane, and bytes of all residuals."""
    x, state = frames(net, timesteps=STEPS, batch=1), started(net)
    rows: dict[int, list] = {}
    for array in known(net, x, state, groups):
        channels = array.shape[-3:]
        rows.setdefault(int(np.prod(channels)), []).append(np.asarray(array).reshape(-1, *channels))
    tables = {size: np.concatenate([a.reshape(-1, size) for a in group]) for size, group in
              rows.items()}  # fmt: skip

    def is_membrane(leaf):
        size = int(np.prod(leaf.shape[-3:]))
        if leaf.dtype != jnp.float32 or leaf.ndim < 4 or size not in tables:
            return False
        rows = np.asarray(leaf).reshape(-1, size)
        return all(np.abs(tables[size] - row).max(1).min() < 1e-6 for row in rows)

    leaves = jax.tree.leaves(residuals_of(net, x, state))
    return sum(a.nbytes for a in leaves if is_membrane(a)), sum(a.nbytes for a in leaves)


@pytest.mark.fast
def test_a_shared_membrane_is_kept_once_at_full_width():
    """VGG16, both, G = 2, T = 5 at 32x32, told by their shapes: nothing is computed.

    Without a norm the arrays [T, B, ..., C] that an unshared net keeps are its membranes, since the
    convolutions' inputs are folded to [T * B, ..., C]; with spikes packed those [..., C / 2] that a
    shared one keeps are.
    """
    make = functools.partial(models.efficient_lif_vgg, norm=bare)

    def kept(batch, **options):
        net = jax.eval_shape(lambda: make(rngs=nnx.Rngs(0), **options))
        state = jax.eval_shape(lambda net: nn.contract.repeat_state(net.initial_state(batch)), net)
        x = jax.ShapeDtypeStruct((STEPS, batch, 32, 32, 3), jnp.float32)
        leaves = jax.tree.leaves(jax.eval_shape(residuals_of, net, x, state))
        shapes = {leaf.shape[1:] for leaf in jax.tree.leaves(state.neurons)}
        found = [leaf for leaf in leaves if leaf.dtype == jnp.float32 and leaf.shape[-3:] in shapes]
        return sum(leaf.size for leaf in found if leaf.shape[-4] == batch)

    unshared = kept(7, sharing="none")
    assert unshared == 7 * (STEPS + 1) * MEMBRANES["vgg", "none"]
    shared = kept(7, sharing="both", memory=WAYS["depth"])
    assert shared == 7 * MEMBRANES["vgg", "both"]
    assert STEPS * 7 * MEMBRANES["vgg", "none"] / shared >= 21.39
    assert unshared / shared >= 21.4


def bare(channels):
    del channels
    return nn.Sequential()


@pytest.mark.slow
def test_a_shared_membrane_is_kept_once():
    """VGG16, both, G = 2, T = 5, told by their values among the residuals of `jax.vjp`.

    The unshared net under store keeps T membranes per layer and the one before them; the shared one
    keeps one per stage: 4.28 times less state, 21.4 times less kept, T + 1 for T 25.7 times.
    """
    unshared, total = membranes_kept(narrow(sharing="none"), 1)
    of_state = 4 * elements(narrow(sharing="none"))
    assert unshared == (STEPS + 1) * of_state
    for way in (
        memory.Strategy(time=memory.recompute(STEPS)),
        memory.Strategy(depth=memory.recompute(1), pack=True),
    ):
        shared, less = membranes_kept(narrow(sharing="both", memory=way), 2)
        assert shared == 4 * elements(narrow(sharing="both"))
        assert round(of_state / shared, 2) == 4.28
        assert round(STEPS * of_state / shared, 1) == 21.4
        assert unshared / shared >= 21.4
        assert less < total / 4


@pytest.mark.slow
def test_a_shared_membrane_without_a_leak_is_kept_at_its_ends():
    """Reversed over T timesteps: the last one, and the first, which is an argument."""
    net = narrow(sharing="both", memory=WAYS["reverse"], neuron=nn.IF)
    shared, _ = membranes_kept(net, 2)
    assert shared <= 2 * 4 * elements(narrow(sharing="both"))


# Networks as any other.


@pytest.mark.parametrize(
    ("family", "sharing"),
    [
        ("har", "both"),
        pytest.param("har", "channel", marks=pytest.mark.slow),
        *(
            pytest.param(f, s, marks=pytest.mark.slow)
            for f in ("vgg", "resnet")
            for s in ("channel", "both")
        ),
    ],
)
def test_orders_are_the_same_function(family, sharing):
    net = build(family, sharing=sharing)
    x = frames(net, batch=4)
    expected, (outputs, aux) = run(net, x)
    assert outputs.shape == (T, 4, CLASSES)
    again, (values, aux_again) = run(build(family, sharing=sharing, order="time"), x)
    assert_close(values, outputs, 1e-5)
    assert_close(jax.tree.leaves(aux_again.statistics), jax.tree.leaves(aux.statistics), 1e-5)
    pairs = zip(again[:-1], expected[:-1], strict=True)  # of parameters: the image enters once
    for got, want in pairs:
        np.testing.assert_allclose(got, want, atol=1e-4 * float(jnp.abs(want).max()) + 1e-7)


@pytest.mark.slow
def test_a_moving_scene_is_seen_where_it_is_not_static():
    still, moving = (build("vgg", static=static) for static in (True, False))
    x = frames(still, static=False)
    outputs = [run(net, x)[1][0] for net in (still, moving)]
    assert np.abs(outputs[0] - outputs[1]).max() > 0
    x = frames(still)
    assert_close(*(run(net, x)[1][0] for net in (still, moving)), 1e-5)


def test_dropout_of_the_sensor_network():
    net = build("har", dropout=0.5, sharing="both")
    assert_equal(run(net, frames(net))[1][0], run(net, frames(net))[1][0])
    with pytest.raises(ValueError, match="key="):
        net(frames(net), net.initial_state(B), training=True)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build("vgg", sharing="all"), "sharing must be one of"),
        (lambda: build("har", sharing="all"), "sharing must be one of"),
        (lambda: build("har", depth=0), "at least one hidden layer"),
        (lambda: build("vgg", groups=3).initial_state(1), "cannot be divided into 3 groups"),
        (lambda: build("vgg", stages=((4, 6),)).initial_state(1), "of one shape"),
        (lambda: build("vgg", stages=((4,),) * 5), "fewer stages"),
        (lambda: build("resnet", stages=((4, 3),), memory=WAYS["reverse"]), "12 times"),
        (lambda: models.efficient_lif_compat("vgg19", rngs=nnx.Rngs(0)), "architecture must be"),
        (lambda: models.efficient_lif_compat("vgg16", groups=4, rngs=nnx.Rngs(0)), "fixes groups"),
    ],
)
def test_errors_name_the_cure(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_statistics_over_the_window_cannot_be_shared():
    net = build("vgg", norm=nn.BatchNorm)
    with pytest.raises(ValueError, match="window"):
        net(frames(net), net.initial_state(B), training=True)
