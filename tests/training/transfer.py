"""The network of `micro` on half of its classes, another window and strategy: for fine-tuning."""

import dataclasses

from snnjax import memory, nn, training
from tests.training import micro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer(training.Experiment):
    """Fields of its own.

    Attributes:
        width: Hidden neurons.
        classes: Digits from 0 on.
    """

    width: int = 8
    classes: int = 5


def network(experiment, rngs):
    head = nn.Linear(experiment.width, experiment.classes, rngs=rngs)
    layers = list(micro.network(experiment, rngs).body.layers)[:-1]
    return nn.Network(nn.Sequential(*layers, head), input_shape=(8, 8, 1))


def dataset(experiment):
    whole = micro.dataset(experiment)
    splits = [split.take(split.labels < experiment.classes) for split in (whole.train, whole.test)]
    return dataclasses.replace(
        whole,
        train=splits[0],
        test=splits[1],
        classes=experiment.classes,
        class_names=whole.class_names[: experiment.classes],
    )


def config():
    return Transfer(
        name="transfer",
        network=network,
        dataset=dataset,
        encode=micro.encode,
        timesteps=3,
        memory=memory.Strategy(time=memory.recompute(2)),
        batch=128,
        eval_batch=180,
        epochs=1,
        learning_rate=1e-2,
        weight_decay=1e-1,
    )
