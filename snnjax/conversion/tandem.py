"""Tandem layers: spike counts forward, the gradient of a rectified linear layer backward.

A layer has two paths with one set of weights. The neurons fire for T timesteps; their gradient is
that of the source network's layer at the spike counts that enter:

    z             height * W c + b,                     c = sum over t of s_in[t]
    backward      relu(norm(z))                         a count of the source network's units
    forward       v += (height * W' s_in[t] + b' / T) / threshold
                  s[t] = [v >= 1],    v -= s[t]         W', b': weights with the norm folded

A spike of a layer stands for its `threshold` in the source network's units, and the layer behind it
takes that as the `height` of its inputs: a conversion changes no weight. With `height=1` counts
enter as they are, as in the released code, where the norms behind adapt to their scale.

References: Wu, Chua, Zhang, Li, Li, Tan, "A Tandem Learning Rule for Effective Training and Rapid
Inference of Deep Spiking Neural Networks", 2019, arXiv:1907.01167; Wu, Xu, Han, Zhou, Zhang, Li,
Tan, "Progressive Tandem Learning for Pattern Recognition with Deep Spiking Neural Networks", 2020,
arXiv:2007.01204.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import nn
from snnjax.conversion.folding import is_synapse, rescaled
from snnjax.learning import surrogate_vjp
from snnjax.nn.contract import (
    Aux,
    Call,
    State,
    no_state,
    output_shape,
    prefix_names,
    replace,
    same_shape,
)
from snnjax.ops.arguments import as_floating, check_counts, check_flags, check_numbers
from snnjax.ops.rounding import wide_array
from snnjax.typing import Array, bind

__all__ = ["Fixed", "SpikeSum", "Tandem", "constant", "fold", "impulse"]


class Fixed(nnx.Variable):
    """Variable of a threshold or a height: saved with the weights, never learned."""


class SpikeSum(nnx.Module):
    """Weighted spike counts, `y = height * sum over t of x[t]`, `[T, B, ...] -> [1, B, ...]`.

    Placed behind the last layer of neurons: the layers behind it take the counts, and the readout
    of one timestep returns its outputs.

    Args:
        height: value of a spike.
    """

    def __init__(self, *, height: float = 1.0):
        check_numbers("conversion.SpikeSum", height=height)
        self.height, self.name = Fixed(wide_array(height)), "spikesum"

    initial_state, infer_shape = no_state, same_shape

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Adds up a train `[T, B, ...]`."""
        inputs = as_floating("conversion.SpikeSum", inputs)
        return _fixed(self.height, inputs.dtype) * _count(inputs), Aux()


class Tandem(nnx.Module):
    """Synapse, normalisation and activation: rectified without timesteps, spiking with them.

        timesteps=None    relu(norm(height * W c + b)),    [T, B, ...] -> [1, B, ...]
        timesteps=T       trains of spikes 0 and 1,        [T, B, ...] -> [T, B, ...]

    with c the sum of the inputs over time. One timestep of inputs to a spiking layer is an image,
    presented as an impulse at t = 0, as in the paper; `constant` spreads it over time instead. An
    impulse costs one timestep of analog products, but negative biases then come too late.

    The derivative of the outputs is not that of backpropagation through time, and `exact` is False:
    the mean over time of their cotangent enters `relu(norm(z))` as it is, without the factor
    `1 / threshold` of a count, as in the paper. The backward pass keeps the counts `[B, ...]`.

    In training the running statistics of the norm move before they are folded, and the backward
    pass uses those of the batch.

    Currents of one sign that do not grow over time, such as an impulse or a constant, give the
    count `clip(floor(z / threshold), 0, T)`. Charge that arrives late finds too few timesteps left,
    and inhibition too late takes no spike back.

    Args:
        synapse: `nn.Linear` or `nn.Conv`.
        norm: `nn.BatchNorm`, or None.
        timesteps: number T of timesteps; None for the rectified layer.
        threshold: sum of currents per spike, in the units of the rectified layer.
        height: value of a spike of the inputs, the threshold of the layer before.
        epsilon: folds the norm's epsilon, too. The released code leaves it out, which divides by
            zero where a channel is constant.
        neuron: layer of neurons in place of `nn.IF()`, of threshold 1 in its own units.
        frozen: no gradient, and running statistics that stay; training them without the weights
            would change the folded layer.

    Raises:
        TypeError: the synapse or the norm is another layer.
        ValueError: a threshold that is not positive; inputs of neither 1 nor T timesteps.

    Reference:
        Wu, Xu, Han, Zhou, Zhang, Li, Tan, "Progressive Tandem Learning for Pattern Recognition with
        Deep Spiking Neural Networks", 2020, arXiv:2007.01204.
    """

    def __init__(
        self,
        synapse: nn.Fold,
        norm: nn.BatchNorm | None,
        *,
        timesteps: int | None = None,
        threshold: float = 1.0,
        height: float = 1.0,
        epsilon: bool = True,
        neuron: nn.Neuron | None = None,
        frozen: bool = False,
    ):
        if not is_synapse(synapse):
            raise TypeError("conversion.Tandem takes nn.Linear(...) or nn.Conv(...) as synapse")
        if norm is not None and not isinstance(norm, nn.BatchNorm):
            raise TypeError("conversion.Tandem folds nn.BatchNorm(...) or no norm, None")
        if timesteps is not None:
            check_counts("conversion.Tandem", timesteps=timesteps)
        check_numbers("conversion.Tandem", above=0, threshold=threshold, height=height)
        check_flags("conversion.Tandem", epsilon=epsilon, frozen=frozen)
        self.synapse, self.norm, self.name = synapse, norm, "tandem"
        self.neuron = nn.IF() if neuron is None else neuron
        self.timesteps, self.epsilon, self.frozen = timesteps, epsilon, frozen
        self.threshold = Fixed(wide_array(threshold))
        self.height = Fixed(wide_array(height))

    @property
    def spiking(self) -> bool:
        """True if every output is exactly 0 or 1."""
        return self.timesteps is not None

    @property
    def exact(self) -> bool:
        """False where the layer spikes: its derivative is that of the rectified layer."""
        return not self.spiking

    @property
    def whole_window(self) -> int:
        """Number of timesteps that the layer takes at once."""
        # A gradient at the counts needs all of them; `spiking_network` streams.
        return self.timesteps or 1

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest, and the statistics of the norm."""
        statistics = () if self.norm is None else self.norm.initial_state(shape).statistics
        if not self.spiking:
            return State((), statistics)
        currents = output_shape(self.synapse, State(), shape)
        return State(self.neuron.initial_state(currents).neurons, statistics)

    def infer_shape(self, state: State, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the outputs of the synapse."""
        del state
        return output_shape(self.synapse, State(), shape)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Applies the layer to a train or, as one timestep, to an image or counts."""
        inputs = as_floating("conversion.Tandem", inputs)
        if not self.spiking:
            return self.rectify(_count(inputs), state, call)
        if len(inputs) not in (1, self.timesteps):
            raise ValueError(
                f"conversion.Tandem spreads its biases over {self.timesteps} timesteps, got "
                f"{len(inputs)}: give all of them at once, or one as an impulse"
            )
        if self.frozen:
            outputs, aux = _simulate((self, state, call), inputs)
            return jax.lax.stop_gradient(outputs), aux
        run = surrogate_vjp(
            _simulate, bind(_rectified_trains, timesteps=self.timesteps), summarize=_count
        )
        return run((self, state, call), inputs)

    def rectify(self, counts: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """The source network's layer, `relu(norm(height * W c + b))`.

        Args:
            counts: c, `[1, B, ...]`.
            state: state of this layer, with the statistics of the norm.
            call: options of this call.
        """
        scaled = _fixed(self.height, counts.dtype) * counts
        currents, aux = self.synapse(scaled, State(), call)
        if self.norm is None:
            return jax.nn.relu(currents), aux
        norm = replace(self.norm, over="frozen") if self.frozen else self.norm
        outputs, own = norm(currents, State((), state.statistics), call)
        return jax.nn.relu(outputs), aux._replace(statistics=own.statistics)


def fold(layer: Tandem, statistics: Any) -> nn.Fold:
    """The synapse of a tandem layer for neurons of threshold 1, with a bias for each timestep.

        W' = W * height * f / threshold,    b' = ((b - mean) * f + beta) / (threshold T)
        f  = gain * gamma / sqrt(var + epsilon)

    Args:
        layer: a layer with timesteps.
        statistics: running mean and variance of its norm; unused without one.
    """
    function: Any = layer.synapse.function
    cast = lambda *arrays: (a.astype(function.kernel.dtype) for a in arrays)  # noqa: E731
    height, threshold = cast(layer.height[...], layer.threshold[...])
    factor, offset = jnp.ones_like(height), None
    if (norm := layer.norm) is not None:
        mean, var = cast(statistics.mean, statistics.var)
        scale, beta = cast(norm.scale[...], norm.bias[...])
        # The released code divides by the root of the variance alone.
        factor = norm.gain * scale / jnp.sqrt(var + norm.epsilon * layer.epsilon)
        offset = (beta - factor * mean) / (threshold * layer.whole_window)
    return rescaled(
        layer.synapse,
        kernel=factor * (height / threshold),
        bias=factor / (threshold * layer.whole_window),
        offset=offset,
    )


def impulse(image: Array, *, timesteps: int) -> Array:
    """An image at t = 0 and zeros after it, `[1, B, ...] -> [T, B, ...]`.

    Args:
        image: one timestep, `[1, B, ...]`.
        timesteps: number T of timesteps.

    Raises:
        ValueError: more than one timestep.
    """
    _check_image(image)
    return jnp.concatenate([image, jnp.zeros((timesteps - 1, *image.shape[1:]), image.dtype)])


def constant(image: Array, *, timesteps: int) -> Array:
    """A T-th of an image at every timestep, `[1, B, ...] -> [T, B, ...]`.

    Args:
        image: one timestep, `[1, B, ...]`.
        timesteps: number T of timesteps.

    Raises:
        ValueError: more than one timestep.
    """
    _check_image(image)
    return jnp.broadcast_to(image / timesteps, (timesteps, *image.shape[1:]))


def _check_image(image: Array) -> None:
    if len(image) != 1:
        raise ValueError(f"an image is one timestep, got {len(image)}: encode with timesteps=1")


def _fixed(variable: Fixed, dtype: Any) -> Array:
    return jax.lax.stop_gradient(variable[...]).astype(dtype)


def _count(inputs: Array) -> Array:
    return inputs.sum(0, keepdims=True)


def _simulate(params: Any, inputs: Array) -> tuple[Array, Aux]:
    layer, state, call = params
    statistics = state.statistics
    if call.training and layer.norm is not None:
        # Moved before the fold: the neurons of this very step follow them.
        _, moved = layer.rectify(_count(inputs), state, call.with_taps())
        statistics = moved.statistics
    folded = fold(layer, statistics)
    if len(inputs) < layer.timesteps:
        inputs = impulse(inputs, timesteps=layer.timesteps)
    currents, synapse = folded(inputs, State(), call)
    outputs, neuron = layer.neuron(currents, State(state.neurons), call)
    taps = prefix_names("synapse", synapse.taps) | neuron.taps
    return outputs, Aux(neuron.state, statistics, taps)


def _rectified_trains(params: Any, counts: Array, kept: Any, *, timesteps: int) -> Array:
    del kept
    layer, state, call = params
    outputs, _ = layer.rectify(counts, state, call.with_taps())
    return _spread(outputs[0], timesteps)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _spread(counts: Array, timesteps: int) -> Array:
    """Train of equal parts of counts, `[B, ...] -> [T, B, ...]`."""
    return jnp.broadcast_to(counts / timesteps, (timesteps, *counts.shape))


def _spread_forward(counts, timesteps):
    return _spread(counts, timesteps), None


def _spread_backward(timesteps, residuals, cotangent):
    del timesteps, residuals
    # Exact for equal rows, of which a plain mean may differ in the last bit.
    return (cotangent[0] + (cotangent - cotangent[0]).mean(0),)


_spread.defvjp(_spread_forward, _spread_backward)
