"""The embedded digits with neurons that are parallel in time, in place of LIF neurons.

Paper: Fang et al., "Parallel Spiking Neurons with High Efficiency and Ability to Learn Long-term
Dependencies", NeurIPS 2023, arXiv:2304.12760, defines the PSN and its variants. Data, split,
network, recipe and seeds are those of snnjax/default_experiment.py; only the neuron differs. No
result of the paper is reproduced: static digits at T = 4 have no long-term dependency.

Hardware: one CPU core (float32, jax 0.10.2)
Time: 1 minute for each run
Expected: no neuron is better than LIF here: of 360 test digits the mean over the seeds 0, 1 and 2,
    one digit being 0.28 %, and spikes per neuron and timestep:
        lif              99.0 %  (99.2, 98.9, 98.9)    0.212
        psn              98.5 %  (98.9, 98.9, 97.8)    0.168
        masked_psn       99.0 %  (99.4, 99.2, 98.3)    0.120
        sliding_psn      98.0 %  (98.6, 97.8, 97.5)    0.233
        reset_free_lif   98.8 %  (98.6, 98.9, 98.9)    0.244
Command: snnjax train experiments/parallel_digits.py --neuron psn --seed 0
"""

import dataclasses

from snnjax import nn, training
from snnjax.default_experiment import dataset, encode


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelDigits(training.Experiment):
    """Fields of this experiment.

    Attributes:
        neuron: "lif", "psn", "masked_psn", "sliding_psn" or "reset_free_lif".
        order: Timesteps that a masked or sliding PSN combines.
    """

    neuron: str = "psn"
    order: int = 2


def network(experiment, rngs):
    """Conv - pool - conv - pool - linear, with the chosen neuron in between."""
    make = {
        "lif": lambda: nn.LIF(decay=0.5),
        "psn": lambda: nn.PSN(experiment.timesteps, rngs=rngs),
        "masked_psn": lambda: nn.PSN(experiment.timesteps, order=experiment.order, rngs=rngs),
        "sliding_psn": lambda: nn.SlidingPSN(order=experiment.order),
        "reset_free_lif": lambda: nn.ResetFreeLIF(decay=0.5),
    }[experiment.neuron]
    return nn.Network(
        nn.Sequential(
            *(nn.Conv(1, 16, rngs=rngs), nn.BatchNorm(16), make(), nn.AvgPool()),
            *(nn.Conv(16, 32, rngs=rngs), nn.BatchNorm(32), make(), nn.AvgPool()),
            *(nn.Flatten(), nn.Linear(4 * 32, 10, rngs=rngs)),
        ),
        input_shape=(8, 8, 1),
    )


def config():
    """The recipe of the embedded experiment."""
    return ParallelDigits(
        name="parallel_digits",
        network=network,
        dataset=dataset,
        encode=encode,
        timesteps=4,
        batch=64,
        eval_batch=360,
        epochs=40,
        learning_rate=1e-2,
        warmup_epochs=1,
        weight_decay=1e-3,
        label_smoothing=0.1,
        checkpoint_every=220,
    )
