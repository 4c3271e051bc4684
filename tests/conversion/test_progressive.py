"""The schedule against the authors' function, and networks between source and spiking network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import nn, readout
from snnjax.conversion import ReLU, ThresholdReLU, progressive, tandem
from snnjax.conversion.progressive import Progress, progressive_step
from tests.learning import golden


@pytest.mark.parametrize("table", ["0", "1"])
def test_the_schedule_equals_the_authors(shared, table):
    a, meta = golden.load(shared, "ptl_schedule")
    # At stage 0 the authors have the source's threshold 1 and best accuracy 0.
    progress = Progress(len(meta["layers"]) - 1, best=0.0).with_threshold(1.0)
    converted = []
    for epoch, score, k, stale, best, thresholds, frozen, rate in a[f"rows{table}"]:
        stage = progress.stage
        progress = progressive_step(progress, score, patience=meta["Tpatient"], floor=0.0)
        if progress.stage > stage or progress.done:
            converted += [int(epoch)]
        if thresholds < 0:
            assert progress.done and epoch == len(a[f"rows{table}"]) - 1
            break
        if progress.wants_threshold:
            progress = progress.with_threshold(round(10 + progress.stage + epoch / 100, 2))
        own = (progress.stage, progress.stale, progress.best, len(progress.thresholds))
        assert own == (k, stale, pytest.approx(best), thresholds)
        assert sum(2**n for n in progress.frozen) == frozen
        assert meta["lr"] * progress.rate == pytest.approx(rate)
    np.testing.assert_allclose(progress.thresholds, a[f"vthr_convert{table}"], rtol=1e-6)
    assert converted[:3] == list(a[f"epoch_convert{table}"])
    with pytest.raises(ValueError, match="the schedule is done"):
        progressive_step(progress, 1.0, patience=2)


def play(scores, *, hidden=2, patience=2, **options):
    progress, seen = Progress(hidden), []
    for score in scores:
        if progress.wants_threshold:
            progress = progress.with_threshold(1.0)
        progress = progressive_step(progress, score, patience=patience, **options)
        seen.append((progress.stage, progress.frozen, progress.best_epoch))
    return progress, seen


def test_a_regression_is_scheduled_by_minus_its_loss():
    _, seen = play([-3.0, -2.0, -2.0, -2.5, -9.0, -8.0])
    assert seen[:4] == [(0, (), 1), (0, (), 2), (0, (), 2), (1, (0, 1), 2)]
    # A stage begins anew: a loss above that of the stage before is its best so far.
    assert seen[4:] == [(1, (0, 1), 5), (1, (0, 1), 6)]


def test_a_number_of_epochs_ends_a_stage_and_the_last_keeps_the_best():
    progress, seen = play([0.5, 0.6, 0.9, 0.8, 0.7, 0.6], patience=9, epochs=2)
    assert [s[0] for s in seen] == [0, 1, 1, 2, 2, 2] and progress.done
    assert (progress.best, progress.best_epoch) == (0.9, 3)
    # NaN is no improvement.
    assert play([0.5, float("nan"), float("nan")])[1][-1] == (1, (0, 1), 1)


def test_a_stage_needs_its_threshold():
    with pytest.raises(ValueError, match="spikes without a threshold"):
        progressive_step(Progress(2), 0.5, patience=1)
    with pytest.raises(ValueError, match="all 1 spiking layers"):
        Progress(2).with_threshold(1.0).with_threshold(1.0)


@functools.cache
def source(*, seed=0):
    """A convolution, a pool and two hidden layers, with running statistics of a batch."""
    rngs = nnx.Rngs(seed)
    body = nn.Sequential(
        nn.Sequential(nn.Conv(1, 3, strides=2, rngs=rngs), nn.BatchNorm(3), ReLU()),
        *(nn.AvgPool(), nn.Flatten(), nn.Dropout(0.5)),
        *(nn.Linear(12, 16, rngs=rngs), ReLU()),
        *(nn.Linear(16, 12, use_bias=False, rngs=rngs), nn.BatchNorm(12), ReLU()),
        nn.Linear(12, 4, rngs=rngs),
    )
    net = nn.Network(body, (8, 8, 1))
    images = jax.random.uniform(jax.random.key(seed), (1, 40, 8, 8, 1))
    state = net.initial_state(40)
    call = jax.jit(lambda net, state, key: net(images, state, training=True, key=key))
    for key in range(20):
        _, aux = call(net, state, jax.random.key(key))
        state = state._replace(statistics=aux.statistics)
    return net, state.statistics, images


run = jax.jit(lambda net, frames, state: net(frames, state, training=False))


def outputs(net, statistics, frames):
    state = net.initial_state(frames.shape[1], statistics=statistics)
    return readout.rate(run(net, frames, state)[0])


def test_networks_from_source_to_spiking():
    net, statistics, images = source()
    plain, own = progressive.tandem_network(net, statistics)
    assert len(progressive.layers(plain)) == 3
    expected = outputs(net, statistics, images)
    golden.close(outputs(plain, own, images), expected, atol=1e-5)

    # One layer spikes: over many timesteps, the outputs of a constant image are the source's.
    top = progressive.percentile(plain, own, images, 0, q=100)
    one = progressive.spike(plain, 0, threshold=top / 256, timesteps=256)
    assert [layer.spiking for layer in progressive.layers(one)] == [True, False, False]
    drive = tandem.constant(images, timesteps=256)
    np.testing.assert_allclose(outputs(one, own, drive), expected, atol=0.02)
    # The network before is unchanged, and shares its weights.
    assert not progressive.layers(plain)[0].spiking
    assert progressive.layers(plain)[1].height[...] == 1

    tandems, own = progressive.primitive(net, statistics, images, timesteps=8, q=99.0)
    spiking = progressive.spiking_network(tandems, own)
    found = outputs(spiking, None, tandem.impulse(images, timesteps=8))
    golden.close(found, outputs(tandems, own, images), atol=1e-5)
    assert not any(isinstance(m, nn.BatchNorm) for _, m in nnx.iter_modules(spiking))

    # Step by step, with the state handed on, it gives the same.
    state, steps = spiking.initial_state(40), []
    for frame in tandem.impulse(images, timesteps=8):
        y, aux = run(spiking, frame[None], state)
        state, steps = state.after(aux), [*steps, y]
    golden.close(readout.rate(jnp.concatenate(steps)), found, atol=1e-6)
    taps = spiking(images, spiking.initial_state(40), training=False, taps=("spikes",))[1].taps
    assert all(set(np.unique(kinds["spikes"])) <= {0, 1} for kinds in taps.values())


def test_frozen_layers_keep_their_weights_and_statistics():
    net, statistics, images = source()
    plain, own = progressive.tandem_network(net, statistics)
    two = progressive.spike(plain, 0, threshold=0.3, timesteps=4)
    two = progressive.with_frozen(progressive.spike(two, 1, threshold=0.2, timesteps=4), 2)
    graph, params, rest = nn.split(two)

    def loss(params):
        made = nn.merge(graph, params, rest)
        start = made.initial_state(40, statistics=own)
        y, aux = made(images, start, training=True, key=jax.random.key(0))
        return jnp.sum(y**2), aux.statistics

    grads, moved = jax.jit(jax.grad(loss, has_aux=True))(params)
    zero = [
        not any(np.any(g) for g in jax.tree.leaves(x)) for x in grads["body"]["layers"].values()
    ]
    # Indices of the layers with parameters: three groups and the output.
    assert zero == [True, True, False, False]
    same = [
        all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, pair), strict=True))
        for pair in zip(own, moved, strict=True)
        if jax.tree.leaves(pair)
    ]
    assert same == [True, False]


def test_wrong_networks_are_refused_by_name():
    rngs = nnx.Rngs(0)
    lin = lambda: nn.Linear(4, 4, rngs=rngs)  # noqa: E731
    cases = {
        "maxpool2 does not take part": [lin(), ReLU(), nn.MaxPool(), lin()],
        "linear0 is followed by lif1": [lin(), nn.LIF(), lin()],
        "linear0 is followed by thresholdrelu1": [lin(), ThresholdReLU(), lin()],
        "linear0 is followed by avgpool1": [lin(), nn.AvgPool(), ReLU(), lin()],
        "no hidden layer": [lin()],
        "no output layer": [lin(), ReLU()],
        "batchnorm3 is followed by no layer": [lin(), ReLU(), lin(), nn.BatchNorm(4)],
    }
    for text, parts in cases.items():
        with pytest.raises(ValueError, match=text):
            progressive.tandem_network(nn.Network(nn.Sequential(*parts), (4,)), ((),) * len(parts))


def test_wrong_steps_are_refused():
    net, statistics, images = source()
    plain, own = progressive.tandem_network(net, statistics)
    with pytest.raises(ValueError, match="spikes after the layers before"):
        progressive.spike(plain, 1, threshold=1.0, timesteps=4)
    with pytest.raises(ValueError, match="does not spike yet"):
        progressive.spiking_network(plain, own)
    one = progressive.spike(plain, 0, threshold=1.0, timesteps=4)
    with pytest.raises(ValueError, match="spikes already"):
        progressive.percentile(one, own, images, 0)
    with pytest.raises(ValueError, match="layer 0 has 0 as percentile 0.1 .*it is dead"):
        progressive.percentile(plain, own, images, 0, q=0.1)
    with pytest.raises(ValueError, match="an image is one timestep"):
        tandem.impulse(jnp.ones((2, 3)), timesteps=4)
