"""Experiments of progressive tandem learning: its stages, and the spiking network at its end.

Every function of the source experiment is called with the experiment at hand, so that fields
overridden in config.json take effect, and with one timestep: the source has no time.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import optax

from snnjax import data, nn, readout
from snnjax.conversion import progressive, tandem
from snnjax.ops.arguments import check_choice, check_counts, check_numbers
from snnjax.training import optimizer as rules
from snnjax.training.errors import ExperimentError
from snnjax.training.experiment import FROM_SCRATCH, Experiment
from snnjax.typing import PyTree

__all__ = ["Options", "spiking_experiment", "stage_experiment"]

_IMAGES = {"impulse": tandem.impulse, "constant": tandem.constant}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of progressive tandem learning; those of the paper, but for `timesteps`, are default.

    Attributes:
        timesteps: Number T of timesteps; 16 in the paper.
        epochs: Most epochs of a stage.
        patience: Epochs without a better validation score after which a stage ends.
        learning_rate: Learning rate of Adam in every stage, a tenth in the last.
        percentile: Percentile of a layer's activations that T spikes stand for.
        validation: Share of the training examples held out to score the epochs.
        calibration: Number of training examples whose activations are measured.
        image: `"impulse"` at t = 0, as in the paper, or `"constant"` over time.
        seed: Seed of the examples held out and measured.

    Raises:
        ValueError: A number out of range.
    """

    timesteps: int
    epochs: int = 20
    patience: int = 6
    learning_rate: float = 1e-3
    percentile: float = 99.9
    validation: float = 0.1
    calibration: int = 512
    image: str = "impulse"
    seed: int = 0

    def __post_init__(self):
        counts = ("timesteps", "epochs", "patience", "calibration")
        check_counts("progressive", **{name: getattr(self, name) for name in counts})
        check_numbers("progressive", above=0, learning_rate=self.learning_rate)
        check_numbers("progressive", above=0, most=100, percentile=self.percentile)
        check_numbers("progressive", above=0, below=1, validation=self.validation)
        check_choice("progressive", choices=tuple(_IMAGES), image=self.image)
        check_counts("progressive", least=0, seed=self.seed)


def stage_experiment(source: Any, options: Options, *, stage: int, hidden: int) -> Any:
    """Experiment of a stage: its network, on training examples without the held-out ones.

    Args:
        source: Experiment of the source network.
        options: Options of the whole training.
        stage: Number of the stage, 0 to `hidden`.
        hidden: Number of layers that become spiking.
    """
    progress = progressive.Progress(hidden, stage)
    return dataclasses.replace(
        _plain(source, options),
        network=functools.partial(_stage_network, source=source.network, progress=progress),
        dataset=functools.partial(_held_out, source=source.dataset, options=options),
        # One timestep reaches the first layer as an impulse.
        encode=functools.partial(_encode, source=source.encode, options=options, expand=False),
        schedule=_constant_rate,
        optimizer=rules.adamw,
        learning_rate=options.learning_rate * progress.rate,
        epochs=options.epochs,
        seed=source.seed + stage,
        eval_every=1,
        checkpoint_every=None,
        keep=1,
    )


def spiking_experiment(source: Any, options: Options) -> Any:
    """Experiment of the spiking network, on the data of the source.

    Args:
        source: Experiment of the source network.
        options: Options of the training.
    """
    return dataclasses.replace(
        _plain(source, options),
        network=functools.partial(_spiking_network, source=source.network, options=options),
        encode=functools.partial(_encode, source=source.encode, options=options, expand=True),
    )


def _plain(source: Experiment, options: Options) -> Any:
    """The source with the fields that all experiments here share."""
    return dataclasses.replace(
        source,
        timesteps=options.timesteps,
        readout=readout.rate,
        # Strategies over time and narrow formats have no meaning for the rectified layers.
        memory=None,
        memory_scheduler=None,
        precision="float32",
        norm_groups=1,
        accumulate=1,
        warmup_epochs=0.0,
        patience=None,
        **FROM_SCRATCH,
    )


def _source_network(experiment: Experiment, rngs: Any, source: Any) -> tuple[nn.Network, PyTree]:
    network = source(dataclasses.replace(experiment, timesteps=1), rngs)
    return progressive.tandem_network(network, network.initial_state(1).statistics)


def _stage_network(experiment, rngs, *, source, progress):
    network, _ = _source_network(experiment, rngs, source)
    found = len(progressive.layers(network))
    if found != progress.hidden:
        raise ExperimentError(
            f"the network has {found} layers that become spiking, and these stages are for "
            f"{progress.hidden}: keep the fields of the source's run"
        )
    for number in range(progress.spiking):
        # The thresholds are in the checkpoint, among the constants.
        network = progressive.spike(network, number, threshold=1.0, timesteps=experiment.timesteps)
    return progressive.with_frozen(network, len(progress.frozen))


def _spiking_network(experiment, rngs, *, source, options):
    if experiment.timesteps != options.timesteps:
        raise ExperimentError(
            f"this network spreads its biases over {options.timesteps} timesteps, and was learned "
            f"for them: timesteps cannot be {experiment.timesteps}; convert the source anew"
        )
    network, statistics = _source_network(experiment, rngs, source)
    for number in range(len(progressive.layers(network))):
        network = progressive.spike(network, number, threshold=1.0, timesteps=options.timesteps)
    return progressive.spiking_network(network, statistics)


def _held_out(experiment, *, source, options):
    return data.hold_out(source(experiment), share=options.validation, seed=options.seed)


def _encode(experiment, inputs, key, *, source, options, expand):
    image = source(dataclasses.replace(experiment, timesteps=1), inputs, key)
    if options.image == "impulse" and not expand:
        return image
    return _IMAGES[options.image](image, timesteps=options.timesteps)


def _constant_rate(experiment, steps):
    del steps
    return optax.constant_schedule(experiment.learning_rate)
