"""Energy of an image in an unsupervised network: FSpiNN's techniques beside the baseline.

Baseline: current-based neurons, inhibitory layer, pair STDP, float32 weights. FSpiNN: lateral
inhibition through a matrix, post-triggered updates once per window of 10 timesteps, 8-bit weights
(`experiments/stdp_mnist.py`). Both learn the first `--learned` images of MNIST, then spikes and
weight updates are counted on the next `--counted` images, with learning and without. The energy is
that of `cost.unsupervised`, operations at 45 nm; the traffic of weights is a column of its own.

Run:
    python experiments/benchmarks/fspinn_energy.py --data-dir "$SNNJAX_DATA"
    python experiments/benchmarks/fspinn_energy.py --data-dir "$SNNJAX_DATA" --json

Hardware: CPU, jax 0.10.2; counts and energies do not depend on it
Time: 4 minutes of one core without N = 4900, which took as long with --learned 40 --counted 10
Expected: baseline / FSpiNN, nJ per image, and bytes of weights read and written in training:

    neurons      training              inference             traffic, kB
    100           3,102 /  1,520  2.0x    521 /    406  1.3x     4,002 /    363  11x
    400           9,428 /  3,115  3.0x  2,083 /  1,622  1.3x    15,530 /  1,338  12x
    900          19,972 /  5,708  3.5x  4,688 /  3,651  1.3x    34,744 /  2,935  12x
    4900         88,404 / 23,885  3.7x 23,121 / 17,471  1.3x   153,764 / 12,844  12x

    Published: 3.5x in training and 1.8x in inference on average, energies measured on GPUs. One
    population of neurons less halves the updates of membranes; input spikes cost the same.

Reference: R. V. W. Putra, M. Shafique, "FSpiNN: An Optimization Framework for Memory- and
Energy-Efficient Spiking Neural Networks", 2020, arXiv:2007.08860.
"""

from __future__ import annotations

import argparse
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import cost, data, plasticity, quantization

NEURONS = (100, 400, 900, 4900)
PEAK = 0.128  # spikes per timestep of 1 ms of a white pixel
CODES = quantization.QFormat(0, 8, rounding=quantization.fixed_point.stochastic)


def networks(neurons: int) -> dict[str, plasticity.Network]:
    """The baseline and FSpiNN's network."""
    return {
        "baseline": plasticity.presets.current_based(neurons),
        "fspinn": plasticity.presets.fspinn(neurons, spikes_per_factor=8.0, form=CODES),
    }


@functools.partial(jax.jit, static_argnums=(0,), static_argnames="learning")
def shown(network, state, rates, key, *, learning):
    """Shows images one after the other: the state after them, and means of their records."""

    def one(state, given):
        return plasticity.present(network, state, *given, learning=learning)

    keys = jax.random.split(key, len(rates))
    state, records = jax.lax.scan(one, state, (rates, keys))
    means = {
        "input_spikes": records.input_spikes.mean(),
        "spikes": records.counts.sum(-1).mean(),
        "weight_updates": records.updates.mean(),
        "showings": records.showings.mean(),
    }
    return state, means


def energies(network: plasticity.Network, learned, counted) -> dict[str, float]:
    """Nanojoules and bytes of weights of an image."""
    keys = jax.random.split(jax.random.key(0), 4)
    state = plasticity.initialize(network, keys[0])
    state, _ = shown(network, state, learned, keys[1], learning=True)
    _, training = shown(network, state, counted, keys[2], learning=True)
    _, inference = shown(network, state, counted, keys[3], learning=False)
    trained, inferred = (
        cost.unsupervised.plasticity_cost(network, **{k: float(v) for k, v in means.items()})
        for means in (training, inference)
    )
    return {
        "training": trained.training.nanojoules,
        "inference": inferred.inference.nanojoules,
        "traffic": trained.training_traffic,
        "spikes": float(inference["spikes"]),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True, help="folder that holds MNIST")
    parser.add_argument("--neurons", type=int, nargs="+", default=NEURONS)
    parser.add_argument("--learned", type=int, default=200, help="images learned before counting")
    parser.add_argument("--counted", type=int, default=20, help="images counted")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    options = parser.parse_args()
    images = data.load("mnist", data_dir=options.data_dir).train
    chosen = images.take(np.arange(options.learned + options.counted)).inputs
    rates = PEAK * data.rescale(jnp.asarray(chosen), 1 / 255).reshape(len(chosen), -1)
    learned, counted = rates[: options.learned], rates[options.learned :]
    for neurons in options.neurons:
        rows = {k: energies(net, learned, counted) for k, net in networks(neurons).items()}
        ratios = {key: rows["baseline"][key] / rows["fspinn"][key] for key in rows["baseline"]}
        if options.json:
            print(json.dumps({"neurons": neurons, **rows, "ratios": ratios}), flush=True)
            continue
        parts = (
            f"{key} {rows['baseline'][key]:,.0f} / {rows['fspinn'][key]:,.0f} = {ratio:.2f}x"
            for key, ratio in ratios.items()
        )
        print(f"N = {neurons:<5} " + "   ".join(parts), flush=True)


if __name__ == "__main__":
    main()
