"""Progressive tandem learning: layer by layer becomes spiking while the others go on learning.

    net, statistics = tandem_network(source, statistics)       rectified layers, same outputs
    for number in range(len(layers(net))):
        theta = percentile(net, statistics, frames, number) / T
        net   = spike(net, number, threshold=theta, timesteps=T)
        ...train all layers that do not spike...               `training.progressive` does
    spiking = spiking_network(net, statistics)                 integrate-and-fire, no norms

`primitive` converts all layers without training between: the comparison.

The schedule is a pure function of the scores that the epochs reach, `progressive_step`. In stage k
layers 0 to k spike. Stage 0 trains all layers, the first by the tandem gradient; in stage k > 0
layers 0 to k are frozen, so that the layers behind learn the counts that layer k really gives. A
last stage goes on with the output layer alone at a tenth of the learning rate.

The released code, github.com/deepspike/progressive_tandem_learning, differs in five points, none of
which is reproduced here:

    - its VGG-11 takes all further thresholds from the last spiking layer's activations
    - dropout of its VGG-11 stays on in evaluation
    - frozen layers go on moving their running statistics, which the spiking path folds
    - a threshold is measured at the newest weights, then the best weights are restored
    - its accuracy is the maximum over the epochs of the test accuracy

References: Wu, Xu, Han, Zhou, Zhang, Li, Tan, "Progressive Tandem Learning for Pattern Recognition
with Deep Spiking Neural Networks", 2020, arXiv:2007.01204.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from snnjax import nn
from snnjax.conversion.activations import ReLU
from snnjax.conversion.folding import (
    Entry,
    flatten,
    is_average_pool,
    is_flatten,
    is_global_pool,
    is_synapse,
    rescaled,
)
from snnjax.conversion.tandem import Fixed, SpikeSum, Tandem, fold
from snnjax.nn.contract import replace
from snnjax.ops.arguments import check_counts, check_numbers
from snnjax.ops.rounding import wide_array
from snnjax.typing import Array, PyTree

__all__ = [
    "Progress",
    "layers",
    "percentile",
    "primitive",
    "progressive_step",
    "spike",
    "spiking_network",
    "tandem_network",
    "with_frozen",
]


class Progress(NamedTuple):
    """State of the schedule between two epochs.

    Attributes:
        hidden: number of layers that become spiking.
        stage: k, `0 .. hidden`: number of the newest spiking layer; `hidden` is the last stage.
        stale: epochs since the best score of the stage.
        best: best score so far of the stage; the last stage keeps that of the one before.
        epoch: epochs so far, over all stages.
        stage_epoch: epochs so far of this stage.
        best_epoch: epoch, from 1, whose weights the next stage starts from; 0 is the source.
        thresholds: thresholds of the layers that spike, from the first.
        done: True after the last stage.
    """

    hidden: int
    stage: int = 0
    stale: int = 0
    best: float = -math.inf
    epoch: int = 0
    stage_epoch: int = 0
    best_epoch: int = 0
    thresholds: tuple[float, ...] = ()
    done: bool = False

    @property
    def spiking(self) -> int:
        """Number of layers that spike in this stage."""
        return min(self.stage + 1, self.hidden)

    @property
    def frozen(self) -> tuple[int, ...]:
        """Numbers of the frozen layers."""
        # The first layer learns in its own stage; later ones are frozen as they are converted.
        return tuple(range(self.spiking)) if self.stage else ()

    @property
    def rate(self) -> float:
        """Factor of the learning rate."""
        return 0.1 if self.stage == self.hidden else 1.0

    @property
    def wants_threshold(self) -> bool:
        """True until the newest spiking layer has its threshold: `with_threshold`."""
        return len(self.thresholds) < self.spiking

    def with_threshold(self, threshold: float) -> Progress:
        """The state with the threshold of the newest spiking layer.

        Raises:
            ValueError: all spiking layers have theirs.
        """
        if not self.wants_threshold:
            raise ValueError(f"all {self.spiking} spiking layers of this stage have a threshold")
        return self._replace(thresholds=(*self.thresholds, threshold))


def progressive_step(
    progress: Progress,
    score: float,
    *,
    patience: int,
    epochs: int | None = None,
    floor: float = -math.inf,
) -> Progress:
    """The schedule after an epoch.

        score > best      best = score, stale = 0
        else              stale = stale + 1
        stale = patience, or the stage has had its epochs: the best weights return, and the next
        stage begins with best = floor; the last stage keeps best

    Args:
        progress: state before the epoch.
        score: score of the epoch on validation examples, higher is better: an accuracy, or minus
            the loss of a regression.
        patience: epochs without a better score that end a stage.
        epochs: most epochs of a stage; None for no limit.
        floor: score that a stage has to exceed at first; 0 in the released code.

    Raises:
        ValueError: the schedule is done, or a layer lacks its threshold.
    """
    check_counts("progressive_step", patience=patience)
    if progress.done:
        raise ValueError("the schedule is done: no epoch follows its last stage")
    if progress.wants_threshold:
        raise ValueError(
            f"layer {progress.stage} spikes without a threshold: progress.with_threshold(...)"
        )
    epoch, own = progress.epoch + 1, progress.stage_epoch + 1
    after = progress._replace(epoch=epoch, stage_epoch=own, stale=progress.stale + 1)
    # Written so that NaN is no improvement.
    if score > progress.best:
        after = after._replace(best=float(score), best_epoch=epoch, stale=0)
    if after.stale < patience and (epochs is None or own < epochs):
        return after
    if progress.stage == progress.hidden:
        return after._replace(done=True)
    following = after._replace(stage=progress.stage + 1, stale=0, stage_epoch=0)
    # The last stage trains the same network: a score of the one before is its own.
    return following if following.stage == progress.hidden else following._replace(best=floor)


def tandem_network(source: nn.Network, statistics: PyTree) -> tuple[nn.Network, PyTree]:
    """The source network with its layers grouped as `conversion.tandem.Tandem`, none spiking.

        [synapse - batch norm, if any - ReLU] * n - synapse

    Between the groups pools that average, dropout and `nn.Flatten` stay. Outputs `[1, B, K]` are
    those of the source on one timestep.

    Args:
        source: trained network of the above form.
        statistics: running statistics of its training, `aux.statistics`.

    Returns:
        The network, which shares the source's parameters, and its statistics.

    Raises:
        ValueError: a layer that does not take part; the message names it and the cure.
    """
    parts, made = flatten(source.body, statistics, ""), []
    while parts:
        entry = parts.pop(0)
        if is_synapse(entry.layer):
            made.append(_group(entry, parts))
        elif _commutes(entry.layer):
            made.append((entry.layer, entry.statistics))
        else:
            raise ValueError(f"{entry.name} does not take part: {_FORM}")
    hidden = [i for i, (layer, _) in enumerate(made) if isinstance(layer, Tandem)]
    if not hidden or not is_synapse(made[-1][0]):
        raise ValueError(f"the network has no hidden layer, or no output layer: {_FORM}")
    # Behind the last neurons and in front of pools, which then run once.
    made.insert(hidden[-1] + 1, (SpikeSum(), ()))
    body, own = zip(*made, strict=True)
    return nn.Network(nn.Sequential(*body), source.input_shape), own


def layers(network: nn.Network) -> list[Tandem]:
    """The tandem layers of a network from `tandem_network`, in order."""
    return [_body(network)[i] for i in _places(network)]


def percentile(
    network: nn.Network,
    statistics: PyTree,
    frames: Array,
    number: int,
    *,
    q: float = 99.9,
) -> float:
    """Percentile of the activations of a rectified layer, in evaluation.

    Args:
        network: network from `tandem_network`; its earlier layers may spike.
        statistics: its running statistics.
        frames: images, one timestep as an impulse or T, `[T, B, *input_shape]`.
        number: number of the layer.
        q: percentile, 0 to 100; zeros of the rectifier count.

    Raises:
        ValueError: it is not positive: the layer is dead on these frames; or the layer spikes.
    """
    check_numbers("conversion.progressive.percentile", above=0, most=100, q=q)
    if layers(network)[number].spiking:
        raise ValueError(f"layer {number} spikes already: measure it before it is converted")
    activations = _activations(network, statistics, frames, _places(network)[number])
    value = float(np.percentile(np.asarray(activations), q))
    if not value > 0:
        raise ValueError(
            f"layer {number} has {value:g} as percentile {q:g} of its activations: it is dead on "
            "these frames, and no threshold follows; train the source with a lower learning rate, "
            "or raise the percentile"
        )
    return value


def spike(
    network: nn.Network, number: int, *, threshold: float, timesteps: int, epsilon: bool = True
) -> nn.Network:
    """A network in which one more layer spikes.

    Args:
        network: network from `tandem_network`, in which layers `0 .. number - 1` spike.
        number: number of the layer.
        threshold: value of one of its spikes: a percentile of its activations over T.
        timesteps: number T of timesteps.
        epsilon: folds the norm's epsilon, too, see `conversion.tandem.Tandem`.

    Raises:
        ValueError: an earlier layer does not spike, or a threshold that is not positive.
    """
    check_numbers("conversion.progressive.spike", above=0, threshold=threshold)
    check_counts("conversion.progressive.spike", timesteps=timesteps)
    if any(not layer.spiking for layer in layers(network)[:number]):
        raise ValueError(f"layer {number} spikes after the layers before it: convert them first")
    place, value = _places(network)[number], Fixed(wide_array(threshold))
    new = {
        place: replace(_body(network)[place], timesteps=timesteps, threshold=value, epsilon=epsilon)
    }
    # The next layer that adds up spikes is told what one of them stands for.
    behind = _body(network)[place + 1 :]
    following = next(i for i, x in enumerate(behind, place + 1) if hasattr(x, "height"))
    height = Fixed(wide_array(threshold))
    new[following] = replace(_body(network)[following], height=height)
    return _with_layers(network, new)


def with_frozen(network: nn.Network, number: int) -> nn.Network:
    """A network whose first layers are frozen: no gradient, and statistics that stay.

    Args:
        network: network from `tandem_network`.
        number: number of frozen layers.
    """
    chosen = _places(network)[:number]
    return _with_layers(network, {i: replace(_body(network)[i], frozen=True) for i in chosen})


def primitive(
    source: nn.Network,
    statistics: PyTree,
    frames: Array,
    *,
    timesteps: int,
    q: float = 99.9,
) -> tuple[nn.Network, PyTree]:
    """All layers converted without training between: progressive learning of no epochs.

    Each threshold is a percentile of the layer's activations behind the layers that spike already,
    which gives fewer errors than those of the source.

    Args:
        source: trained network, see `tandem_network`.
        statistics: its running statistics.
        frames: images as the spiking network gets them, `[1, B, *input_shape]` for impulses.
        timesteps: number T of timesteps.
        q: percentile of the activations.

    Returns:
        The network of tandem layers, for `spiking_network`, and its statistics.
    """
    network, statistics = tandem_network(source, statistics)
    for number in range(len(layers(network))):
        top = percentile(network, statistics, frames, number, q=q)
        network = spike(network, number, threshold=top / timesteps, timesteps=timesteps)
    return network, statistics


def spiking_network(network: nn.Network, statistics: PyTree) -> nn.Network:
    """The ordinary spiking network: synapses with folded norms, integrate-and-fire neurons.

    Its spikes are those of the tandem layers. Inputs `[T, B, ...]` are the image at t = 0 and zeros
    (`conversion.tandem.impulse`), or a T-th of the image at every timestep (`constant`), and
    `readout.rate` of the outputs gives logits in the source's units. It streams, exports, trains
    through time, and is counted by `snnjax.cost`.

    Args:
        network: network of tandem layers, all spiking.
        statistics: its running statistics.

    Raises:
        ValueError: a layer does not spike.
    """
    spiking, made = layers(network), []
    if not all(layer.spiking for layer in spiking):
        raise ValueError("a layer does not spike yet: conversion.progressive.spike(...)")
    for layer, own in zip(_body(network), statistics, strict=True):
        if isinstance(layer, Tandem):
            made += [fold(layer, own), layer.neuron]
        elif not isinstance(layer, nn.Dropout | SpikeSum):
            made.append(layer)
    (total,) = (layer for layer in _body(network) if isinstance(layer, SpikeSum))
    # The readout is a mean over time, and the logits belong to the sum.
    factor, last = total.height[...] * spiking[-1].whole_window, made[-1]
    made[-1] = rescaled(last, kernel=factor)
    return nn.Network(nn.Sequential(*made), network.input_shape)


_FORM = (
    "progressive tandem learning takes [synapse - batch norm, if any - conversion.ReLU] * n - "
    "synapse, with nn.AvgPool, nn.GlobalAvgPool, nn.Flatten or nn.Dropout between the groups"
)


def _commutes(layer: Any) -> bool:
    """True for a layer that is linear per timestep, so that it maps counts as it maps spikes."""
    kinds = (is_flatten, is_average_pool, is_global_pool)
    return isinstance(layer, nn.Dropout) or any(kind(layer) for kind in kinds)


def _group(synapse: Entry, parts: list[Entry]) -> tuple[Any, PyTree]:
    """The tandem layer that a synapse begins, or the output synapse; shortens `parts`."""
    norm = parts.pop(0) if parts and isinstance(parts[0].layer, nn.BatchNorm) else None
    if norm is None and not parts:
        return synapse.layer, synapse.statistics
    activation = parts.pop(0) if parts else None
    if activation is None or not isinstance(activation.layer, ReLU):
        found = "no layer" if activation is None else activation.name
        raise ValueError(f"{(norm or synapse).name} is followed by {found}: {_FORM}")
    layer = Tandem(synapse.layer, None if norm is None else norm.layer)
    return layer, () if norm is None else norm.statistics


def _body(network: nn.Network) -> list[Any]:
    """Layers of a network from `tandem_network`, whose body is one sequence."""
    body: Any = network.body
    return body.layers


def _places(network: nn.Network) -> list[int]:
    return [i for i, layer in enumerate(_body(network)) if isinstance(layer, Tandem)]


def _with_layers(network: nn.Network, new: dict[int, Any]) -> nn.Network:
    own = [new.get(i, layer) for i, layer in enumerate(_body(network))]
    return replace(network, body=nn.Sequential(*own))


def _activations(network: nn.Network, statistics: PyTree, frames: Array, place: int) -> Array:
    """Outputs of the layer at a place, in evaluation."""
    # A network of its own, so that its call checks the frames.
    head = nn.Network(nn.Sequential(*_body(network)[: place + 1]), network.input_shape)
    return _run(head, frames, tuple(statistics[: place + 1]))


@jax.jit
def _run(network: nn.Network, frames: Array, statistics: PyTree) -> Array:
    start = network.initial_state(frames.shape[1], statistics=statistics)
    return network(frames, start, training=False)[0]
