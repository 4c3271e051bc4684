"""Optimal conversion, QCFS and RMP-SNN on MNIST, 784-256-256-10: accuracy and rates against T.

Papers: Deng, Gu, "Optimal Conversion of Conventional Artificial Neural Networks to Spiking Neural
Networks", 2021, arXiv:2103.00476; Bu, Fang, Ding, Dai, Yu, Huang, "Optimal ANN-SNN Conversion for
High-accuracy and Ultra-low-latency Spiking Neural Networks", 2022, arXiv:2303.04347; Han,
Srinivasan, Roy, "RMP-SNN: Residual Membrane Potential Neuron for Enabling Deeper High-Accuracy and
Low-Latency Spiking Neural Network", 2020, arXiv:2003.01811. Data: LeCun et al., 1998.
Sources: ReLU and thresholded ReLU, Adam 1e-3, 3 epochs; QCFS of 4 levels, threshold 8, SGD .1 with
momentum .9, 4 epochs; batch 128, pixels in [0, 1]. Evaluated on the first 2,000 test images;
thresholds are maxima over the first 10,000 training images. The error is the mean distance of rates
from activations in the second layer, in units of the activations.

Hardware: 2 CPU cores, busy with other work (float32, jax 0.10.2, flax 0.12.8)
Time: three minutes in all (84 seconds of CPU time)
Expected: the authors' modules, run by us, one seed: ReLU, source 96.8 %: T=8 95.2 % with shift,
    36.2 % without; T=64 error .026, .124. Thresholded ReLU, T=2: 93.4, 52.5 %. QCFS, source 96.85:
    T=1/2/4 86.0/95.8/96.8 %. Reset by subtraction and to zero, T=32: 96.95, 96.7 %, error .034,
    .424.
    Measured once, seed 0: ReLU, source 96.55 %: T=8 96.5 with shift, 85.2 without; T=64 error .025,
    .086. Thresholded ReLU, source 97.0: T=2 96.8, 96.0 (T=1 96.6, 72.5). QCFS, source 97.0: T=1/2/4
    93.3/96.8/97.1, error smallest at T=4 (.008; .068 at T=16). Reset by subtraction and to zero,
    T=32: 96.65, 96.8, error .170, .294; T=64: .086, .247
Command: python experiments/conversion_mnist.py --data-dir "$SNNJAX_DATA"
The last line of stdout is one JSON object: by source its `accuracy`, and by conversion and T the
`accuracy` and the `error`.
"""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from snnjax import conversion, data, losses, models, neurons, nn

SOURCES = {  # activation, optimizer, epochs
    "relu": (conversion.ReLU, optax.adam(1e-3), 3),
    "threshold": (conversion.ThresholdReLU, optax.adam(1e-3), 3),
    "qcfs": (conversion.QCFS, optax.sgd(0.1, momentum=0.9), 4),
}
CONVERSIONS = {  # options of `to_spiking`, T of interest
    "relu": {
        "shift": ({"shift": "initial"}, (8, 32, 64)),
        "no shift": ({"shift": None}, (8, 32, 64)),
        "reset to zero": ({"shift": None, "reset": neurons.reset.zero}, (32, 64)),
    },
    "threshold": {
        "shift": ({"shift": "initial"}, (1, 2, 4, 8)),
        "no shift": ({"shift": None}, (1, 2, 4, 8)),
    },
    "qcfs": {"shift": ({}, (1, 2, 4, 8, 16))},
}
BATCH, TESTED, CALIBRATED = 128, 2000, 10_000


def pixels(split, count):
    """Images `[count, 28, 28, 1]` in [0, 1], and labels."""
    images = np.asarray(split.inputs[:count], np.float32) / 255
    return jnp.asarray(images).reshape(count, 28, 28, 1), jnp.asarray(split.labels[:count])


def train(name, images, labels, seed):
    """A source, trained on all images."""
    activation, optimizer, epochs = SOURCES[name]
    net = models.mlp((28, 28, 1), hidden=(256, 256), rngs=nnx.Rngs(seed), neuron=activation)
    graphdef, params, constants = nn.split(net)

    def loss(params, pick):
        net = nn.merge(graphdef, params, constants)
        outputs, _ = net(images[pick][None], net.initial_state(BATCH), training=True)
        return losses.mean(losses.rate_cross_entropy(outputs, labels[pick]))

    def step(carry, pick):
        params, slots = carry
        updates, slots = optimizer.update(jax.grad(loss)(params, pick), slots, params)
        return (optax.apply_updates(params, updates), slots), None

    epoch = jax.jit(lambda carry, order: jax.lax.scan(step, carry, order)[0])
    carry = params, optimizer.init(params)
    for key in jax.random.split(jax.random.key(seed), epochs):
        order = jax.random.permutation(key, len(images))
        carry = epoch(carry, order[: len(images) // BATCH * BATCH].reshape(-1, BATCH))
    return nn.merge(graphdef, carry[0], constants)


def accuracy(logits, labels):
    """Percent of the examples."""
    return round(100 * float(jnp.mean(logits.argmax(-1) == labels)), 2)


def convert(net, name, calibration, images, labels):
    """Accuracy and error of the second layer, by conversion and T."""
    thresholds = conversion.calibrate(net, [calibration]) if name == "relu" else None
    table = {}
    for label, (options, timesteps) in CONVERSIONS[name].items():
        spiking = conversion.to_spiking(net, thresholds=thresholds, **options)
        found = conversion.mean_outputs(spiking, images, timesteps=timesteps)
        for t, logits in found.items():
            options_t = {"thresholds": thresholds, "timesteps": t, **options}
            error = conversion.layer_errors(net, images, **options_t)[-1].total
            table[f"{label}, T={t}"] = [accuracy(logits, labels), round(error, 4)]
            print(name, label, t, *table[f"{label}, T={t}"], flush=True)
    return table


def main():
    """Trains, converts and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--seed", type=int, default=0)
    known = parser.parse_args()
    found = data.load("mnist", data_dir=known.data_dir)
    images, labels = pixels(found.train, len(found.train))
    tested = pixels(found.test, TESTED)
    report = {}
    for name in SOURCES:
        net = train(name, images, labels, known.seed)
        logits, _ = net(tested[0][None], net.initial_state(TESTED), training=False)
        table = convert(net, name, images[:CALIBRATED], *tested)
        report[name] = {"accuracy": accuracy(logits[0], tested[1]), **table}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
