"""Errors of converted digits classifiers: the table and the slopes of the specification."""

import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import conversion, neurons, nn
from tests.conversion import sources
from tests.learning import golden

HARD = {"reset": neurons.reset.zero, "shift": None}
T = (8, 16, 64)


@pytest.fixture(scope="module")
def errors():
    """Mean error of the second layer by number of timesteps."""
    inputs, _ = sources.images("test", 200)
    calibration, _ = sources.images("train", 1437)

    def measure(name, timesteps=T, **options):
        net = sources.trained(name)
        thresholds = conversion.calibrate(net, [calibration]) if name == "relu" else None
        return [
            conversion.layer_errors(net, inputs, thresholds=thresholds, timesteps=t, **options)[
                1
            ].total
            for t in timesteps
        ]

    return measure


# With trained thresholds QCFS stands for both kinds.
@pytest.mark.parametrize(
    "name", ["relu", "qcfs", pytest.param("threshold", marks=pytest.mark.slow)]
)
def test_the_source_and_its_conversion_classify_alike(name):
    net = sources.trained(name)
    inputs, labels = sources.images("test", 360)
    calibration, _ = sources.images("train", 1437)
    thresholds = conversion.calibrate(net, [calibration])
    own = None if name == "qcfs" else thresholds
    spiking = conversion.to_spiking(net, thresholds=own)
    source = np.mean(sources.logits(net, inputs).argmax(-1) == labels)
    assert source >= 0.95
    for t, found in conversion.mean_outputs(spiking, inputs, timesteps=(8, 32)).items():
        assert np.mean(found.argmax(-1) == labels) >= source - 0.01, t


def test_soft_reset_halves_the_error_per_doubling_and_hard_reset_stalls(errors):
    soft, hard = errors("relu", shift=None), errors("relu", **HARD)
    slopes = np.diff(np.log2(soft)) / np.diff(np.log2(T))
    # The specification: .640 .327 .083, slope -1; hard .887 .690 .598.
    np.testing.assert_allclose(slopes, -1, atol=0.08)
    assert hard[-1] > 0.6 * hard[0] and hard[-1] > 4 * soft[-1]


# The golden vectors have both; here is how large the error is.
@pytest.mark.slow
def test_half_a_threshold_as_a_shift_and_as_an_initial_membrane(errors):
    timesteps = (16,)
    (none,), (first,) = errors("relu", timesteps, shift=None), errors("relu", timesteps)
    (step,) = errors("relu", timesteps, shift="step")
    # The specification: .32 for both, .104 against .106.
    assert 0.25 < first / none < 0.4
    assert abs(step / first - 1) < 0.1
    (none,), (first,) = (errors("threshold", timesteps, **o) for o in ({"shift": None}, {}))
    (step,) = errors("threshold", timesteps, shift="step")
    # .68 per step and .23 at once: early spikes let the next layer respond.
    assert 0.5 < step / none < 0.8
    assert first / none < 0.3


def test_qcfs_is_best_at_its_own_number_of_levels(errors):
    timesteps = (2, 4, 16, 32)
    found = dict(zip(timesteps, errors("qcfs", timesteps), strict=True))
    assert min(found, key=found.get) == 4
    # Afterwards the rates approach the clipped activation, not its rounding.
    assert found[4] < 0.7 * found[32]
    assert abs(found[32] / found[16] - 1) < 0.1


def test_the_parts_of_the_error_name_its_cause():
    net, (inputs, _) = sources.trained("relu"), sources.images("test", 50)
    thresholds = conversion.calibrate(net, [inputs])
    first, second = conversion.layer_errors(net, inputs, thresholds=thresholds, timesteps=8)
    # A first layer under its largest activation has constant currents.
    assert first.total == first.quantization > 0
    assert first.clipping == first.inherited == first.unevenness == 0
    assert second.clipping == 0
    assert second.inherited > 0 and second.unevenness > 0
    small = {key: value / 4 for key, value in thresholds.items()}
    clipped, after = conversion.layer_errors(net, inputs, thresholds=small, timesteps=64)
    assert clipped.clipping > 10 * clipped.quantization
    assert after.inherited > after.quantization
    assert (clipped.name, after.name) == ("relu2", "relu4")
    assert clipped.threshold == pytest.approx(float(thresholds["relu2"]) / 4)
    for record in (first, second, clipped, after):
        parts = record.clipping + record.quantization + record.inherited + record.unevenness
        assert record.total <= parts * (1 + 1e-6)


def test_quantisation_is_that_of_rounding():
    """For a uniform drive the squared error is step^2 / 3 rounded down, / 12 to the nearest."""
    unit = nn.Sequential(golden.linear(np.ones((1, 1), np.float32)), conversion.ThresholdReLU())
    net = nn.Network(unit, (1,))
    x = jnp.linspace(0, 1, 2000, endpoint=False)[:, None] + 1e-4
    for shift, expected in ((None, 1 / 3), ("initial", 1 / 12)):
        spiking = conversion.to_spiking(net, shift=shift)
        error = conversion.mean_outputs(spiking, x, timesteps=8)[8] - x
        np.testing.assert_allclose(8**2 * np.mean(np.square(error)), expected, rtol=0.02)
