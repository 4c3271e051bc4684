"""MNIST and Fashion-MNIST learned without labels, by STDP and competition.

Papers: Diehl and Cook, "Unsupervised learning of digit recognition using spike-timing-dependent
plasticity", 2015; Putra and Shafique, "FSpiNN: An Optimization Framework for Memory- and
Energy-Efficient Spiking Neural Networks", 2020, arXiv:2007.08860 (`--model fspinn`: OUR
RECONSTRUCTION, see `plasticity.windowed`; its constants are ours).
Data: 60,000 and 10,000 images, each shown once. Labels of the first 10,000 training images say,
afterwards, which neuron stands for which class; none is used in learning.
Network: 784 Poisson inputs - N neurons that inhibit each other. `--model current` is the
current-based variant of BindsNET, 250 steps of 1 ms per image; `conductance` the original, 700 of
0.5 ms and 300 of silence; `fspinn` is `current` with the techniques switched on.

Hardware: 1 CPU core, shared with other work (float32, jax 0.10.2)
Time: measuring
Expected: measuring
Command: snnjax train experiments/stdp_mnist.py --data-dir "$SNNJAX_DATA"
    pictures: snnjax show runs/stdp_mnist-0
"""

import dataclasses
import functools

from snnjax import data, plasticity, quantization, training

PEAK_RATES = {"current": 128.0, "fspinn": 128.0, "conductance": 63.75}  # Hz of a white pixel


@dataclasses.dataclass(frozen=True, kw_only=True)
class STDP(training.Unsupervised):
    """Fields of this experiment.

    `lateral` to `bits` are FSpiNN's techniques and are read under `model="fspinn"` only; a `window`
    or `spikes_per_factor` of None and 32 `bits` switch theirs off.
    """

    source: str = "mnist"
    model: str = "current"
    neurons: int = 400
    brightness: float = 1.0
    strength: float = 120.0
    lateral: bool = True
    post_triggered: bool = True
    window: int | None = 10
    spikes_per_factor: float | None = 4.0
    bits: int = 8


def dataset(experiment):
    """Grey images `[N, 28, 28, 1]`."""
    return data.load(experiment.source, data_dir=experiment.data_dir)


def encode(experiment, inputs, key):
    """Brightness as spikes per timestep, `[B, 784]`."""
    del key
    pixels = data.rescale(inputs, 1 / 255).reshape(len(inputs), -1)
    step = 0.5 if experiment.model == "conductance" else 1.0  # ms
    return pixels * (experiment.brightness * PEAK_RATES[experiment.model] * step / 1000)


def learner(experiment):
    """The network."""
    if experiment.model == "conductance":
        return plasticity.diehl_cook(experiment.neurons)
    make = functools.partial(plasticity.current_based, strength=experiment.strength)
    if experiment.model == "fspinn":
        make = functools.partial(
            plasticity.fspinn,
            strength=experiment.strength,
            lateral=experiment.lateral,
            post_triggered=experiment.post_triggered,
            window=experiment.window,
            spikes_per_factor=experiment.spikes_per_factor,
            form=None if experiment.bits == 32 else quantization.QFormat(0, experiment.bits),
        )
    elif experiment.model != "current":
        raise ValueError(f"model is one of {', '.join(PEAK_RATES)}, not {experiment.model!r}")
    return make(experiment.neurons, slots=96 if experiment.source == "fashion_mnist" else 64)


def config():
    """The experiment."""
    return STDP(name="stdp_mnist", learner=learner, dataset=dataset, encode=encode)
