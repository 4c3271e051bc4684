"""IDE: 64C5s (F64C5), a convolution with feedback, on MNIST, Fashion-MNIST and N-MNIST.

Paper: Xiao, Meng, Zhang, Wang, Lin, "Training Feedback Spiking Neural Networks by Implicit
Differentiation on the Equilibrium State", 2021, arXiv:2109.14247. Data: LeCun, Bottou, Bengio,
Haffner, 1998; Xiao, Rasul, Vollgraf, 2017, arXiv:1708.07747 (not in the paper with this network);
Orchard, Jayawant, Cohen, Thakor, 2015, arXiv:1507.07629.
Network: convolution 5x5, stride 2, to 64 channels with batch norm, feedback convolution 5x5 of
spectral norm at most 1, dropout .2 with one mask per example - linear classifier of the mean rates;
threshold 2. 229 thousand weights, on N-MNIST 291 thousand.
Recipe of the paper, the defaults: 30 timesteps, SGD .05, momentum .9, decay 5e-4 of every
parameter, batch 128, 100 epochs, rate x0.1 after 30, 60 and 90 %; images standardised, without
augmentation. The gradient is solved by Broyden's method: a convolution of bounded matrix norm may
still expand, and the Neumann series then converges slowly or not at all.
N-MNIST: 30 frames of equal duration over the whole recording, 1 where an event occurred. The
released code reads frames of 0 and 1 that were prepared elsewhere, by a rule that we could not
read. Frames take 4.2 GB for the whole set.
Left out: on N-MNIST the released code solves by its `iter` solver, whose gradient is another one
(`learning.solvers.published_iter`). Its script for N-MNIST pads the first convolution by 1 (269
thousand weights), its README counts 291 thousand. On frames it normalises by the unbiased variance.

Hardware: a GPU; reduced: 2 CPU cores, busy with other work (float32, jax 0.10.2, flax 0.12.8)
Time: reduced: 12.5 minutes with one evaluation; the paper's recipe was not run
Expected: published, 100 epochs, IF and LIF (decay .95): MNIST 99.49 +- .04 and 99.53 +- .04 %,
    N-MNIST 99.30 +- .04 and 99.42 +- .04 %.
    Measured, reduced, IF on MNIST, once, seed 0: 98.9 % after 3 epochs (98.92; the goal of 99.0 was
    missed), train 98.9 %. The two terms truncate a series that need not converge: their residual
    rises from .1 to .6, and for the last weights, on one batch, it is .36, of 30 terms 442, of
    Broyden's method .35, of Anderson mixing .20. With `--feedback-norm map`, which bounds
    the convolution itself, the residual of two terms stays near .05 and the test accuracy is
    98.65 % (98.0 and 98.5 after one and two epochs): the truncation is not the reason for the miss.
    Fashion-MNIST and N-MNIST were not run
Command: snnjax train experiments/ide_mnist.py --data-dir "$SNNJAX_DATA"
    leaky neurons: --decay 0.95    events: --source nmnist
    reduced, 4 timesteps and 2 terms of the Neumann series: --timesteps 4 --solver neumann
        --solver-iterations 2 --dropout 0 --batch 64 --epochs 3 --milestones 0.6 0.9 --eval-every 3
"""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from snnjax import data, encoding, learning, models, training

MEAN, DEVIATION = 0.1307, 0.3081  # of MNIST: the paper's for Fashion-MNIST, too
SHAPES = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "nmnist": (34, 34, 2)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedbackMNIST(training.Experiment):
    """Fields of this experiment."""

    source: str = "mnist"  # or "fashion_mnist", "nmnist"
    channels: int = 64
    decay: float = 1.0
    solver: str = "broyden"  # or another function of `learning.solvers`: neumann, anderson
    solver_iterations: int = 30
    solver_tolerance: float = 1e-4  # relative residual at which the solver stops earlier
    feedback_norm: str = "matrix"  # bounded, as in the paper; "map" bounds the convolution itself
    dropout: float = 0.2
    milestones: tuple[float, ...] = (0.3, 0.6, 0.9)  # of the run, where the learning rate falls


def dataset(experiment):
    """60,000 and 10,000 grey images `[N, 28, 28, 1]`, or frames `[N, T, 34, 34, 2]` of events."""
    if experiment.source not in SHAPES:
        raise ValueError(f"source is one of {', '.join(SHAPES)}, not {experiment.source!r}")
    found = data.load(experiment.source, data_dir=experiment.data_dir)
    if experiment.source != "nmnist":
        return found
    size = {"height": 34, "width": 34, "limit": 1, "dtype": np.uint8}
    to_frames = functools.partial(
        encoding.events.frames_by_time, timesteps=experiment.timesteps, **size
    )
    return data.dense(found, to_frames)


def encode(experiment, inputs, key):
    """Standardised image as a constant current, `[1, B, 28, 28, 1]`, or frames time-major."""
    del key
    if experiment.source == "nmnist":
        return encoding.frames(inputs.astype(jnp.float32))
    return data.rescale(inputs, 1 / 255, mean=MEAN, deviation=DEVIATION)[None]


def network(experiment, rngs):
    """64C5s (F64C5)."""
    solver = getattr(learning.solvers, experiment.solver)
    return models.feedback_net(
        SHAPES[experiment.source],
        stages=((experiment.channels, 5, 2),),
        feedback_kernel=5,
        timesteps=experiment.timesteps,
        neuron=learning.lif_rate_model(threshold=2.0, decay=experiment.decay),
        solver=solver(
            iterations=experiment.solver_iterations, tolerance=experiment.solver_tolerance
        ),
        bound=functools.partial(learning.Spectral, norm=experiment.feedback_norm),
        dropout=experiment.dropout,
        rngs=rngs,
    )


def config():
    """The experiment, with the paper's recipe."""
    return FeedbackMNIST(
        name="ide_mnist",
        network=network,
        dataset=dataset,
        encode=encode,
        schedule=training.optimizer.multistep,
        optimizer=functools.partial(training.optimizer.sgd, decays=lambda params: True),
        timesteps=30,
        batch=128,
        epochs=100,
        learning_rate=0.05,
        weight_decay=5e-4,
    )
