"""Normalisation whose running statistics are inputs and outputs, never hidden state.

    y = gain * scale * (x - mean) / sqrt(var + epsilon) + bias

Over which elements `mean` and `var` run is the layer's `over`:

    "window"   T, B and space: the usual batch norm of deep spiking nets; sees the whole window
    "step"     B and space, each timestep by itself; the only batch statistics that exist when a
               whole cell is scanned over time
    "frozen"   none: always the running statistics

`gain = alpha * threshold` is threshold-dependent batch norm (tdBN). With `groups` the batch is cut
into as many neighbouring parts, and each is normalised by itself: ghost batch norm. Running
statistics move towards the mean over the groups.

References: Ioffe and Szegedy, "Batch Normalization", 2015, arXiv:1502.03167; Zheng, Wu, Deng, Hu,
Li, "Going Deeper With Directly-Trained Larger Spiking Neural Networks", 2021, arXiv:2011.05280;
Hoffer, Hubara, Soudry, "Train longer, generalize better: closing the generalization gap in large
batch training of neural networks", 2017, arXiv:1705.08741 (ghost batch norm).
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax.nn.contract import Aux, Call, State
from snnjax.nn.synapses import Fold
from snnjax.ops.isolate import isolate
from snnjax.ops.rounding import narrow
from snnjax.typing import Array, PyTree

__all__ = [
    "BatchNorm",
    "GroupNorm",
    "LayerNorm",
    "Statistics",
    "never_updated",
    "refuse_window_statistics",
]

_OVER = ("window", "step", "frozen")
# Parts in which a batch is summed, where they divide it: one order for up to so many devices.
_BLOCKS = 64


class Statistics(NamedTuple):
    """Running `mean` and (biased) `var` per channel, `[C]`."""

    mean: Array
    var: Array


class BatchNorm(nnx.Module):
    """Batch normalisation over `[T, B, ..., C]`, statistics out.

    In training the batch's statistics normalise and `aux.statistics` holds
    `momentum * running + (1 - momentum) * batch`; otherwise the running ones normalise and go
    through unchanged. Statistics are computed in float32 whatever the input. For its derivative the
    layer keeps its inputs and two numbers per channel; in training there is no forward mode.

    Args:
        channels: `C`.
        over: which elements the batch statistics run over, see above.
        momentum: weight of the *old* running value (PyTorch's 0.1 is 0.9 here).
        epsilon: added to the variance.
        gain: fixed factor; `alpha * threshold` for tdBN.
        scale: value at which the learned scale starts; 0 starts a residual branch as the identity.
        groups: parts of the batch with statistics of their own, in training.
        axes: of a mesh whose devices share the batch, inside `jax.shard_map`: statistics are those
            of all of them (see `nn.with_data_axes`).

    Raises:
        AssertionError: the inputs have another number of channels (on the call).
        ValueError: `over` is not one of the three; `groups` do not divide the batch (on the call).
    """

    def __init__(
        self,
        channels: int,
        *,
        over: str = "window",
        groups: int = 1,
        axes: tuple[str, ...] = (),
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        gain: float = 1.0,
        scale: float = 1.0,
    ):
        if over not in _OVER:
            raise ValueError(f"over must be one of {', '.join(_OVER)}, got {over!r}")
        self.channels, self.over, self.momentum = channels, over, momentum
        self.epsilon, self.gain, self.name = epsilon, gain, "batchnorm"
        self.groups, self.axes = groups, axes
        self.scale = nnx.Param(jnp.full(channels, scale, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Running mean 0 and variance 1."""
        del shape
        # NumPy arrays stay concrete under jax.jit, where `never_updated` looks at them.
        ones = np.ones(self.channels, np.float32)
        return State((), Statistics(np.zeros_like(ones), ones))  # type: ignore[arg-type]

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Normalises `[T, B, ..., C]`."""
        import chex

        chex.assert_axis_dimension(inputs, -1, self.channels)
        running = state.statistics
        if not call.training or self.over == "frozen":
            return self._normalize(inputs, *running), Aux((), running)
        grouped, first = self._split_groups(inputs)
        time = () if self.over == "step" else (0,)
        scale = self.gain * self.scale[...]
        within = (*time, *range(first, grouped.ndim - 1))
        over = (within, self.axes, self.epsilon)
        normal = _batch_norm(*over, grouped, scale, self.bias[...])
        outputs, mean, var = normal  # type: ignore[misc]  # custom_vjp hides the type
        # A row per group and, over "step", per timestep: running values move towards their mean.
        batch = Statistics(*(s.reshape(-1, self.channels).mean(0) for s in (mean, var)))
        # One product, not two: which of two is fused with the sum would be up to the compiler.
        updated = jax.tree.map(
            lambda old, new: old + (1 - self.momentum) * (new - old), running, batch
        )
        return outputs.reshape(inputs.shape), Aux((), jax.lax.stop_gradient(updated))

    def _split_groups(self, inputs: Array) -> tuple[Array, int]:
        """`[T, groups, B / groups, ..., C]`, and the first axis behind time and groups."""
        if self.groups == 1:
            return inputs, 1
        steps, batch, *space = inputs.shape
        if batch % self.groups:
            raise ValueError(
                f"{self.groups} groups do not divide a batch of {batch}: choose groups that do"
            )
        return inputs.reshape(steps, self.groups, batch // self.groups, *space), 2

    def _normalize(self, inputs: Array, mean: Array, var: Array) -> Array:
        factor = self.gain * self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        outputs = (inputs.astype(jnp.float32) - mean) * factor + self.bias[...]
        return narrow(outputs, inputs.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _batch_norm(axes, devices, epsilon, x, scale, bias) -> tuple[Array, Array, Array]:
    """`scale * n + bias` with `n = (x - mean) * r`, `r = 1 / sqrt(var + epsilon)`; mean; var.

    The derivative keeps `x` and two numbers per channel, and reads as it does under every memory
    strategy, so that XLA rounds it alike:

        dx = scale * r * (g - mean(g) - n * mean(g * n)),   dscale = sum(g * n),   dbias = sum(g)

    Mean and variance leave as statistics only: their cotangents are ignored. Means are
    taken over `devices` too, sums are those of one device.

    On a CPU the means are computed by themselves (`ops.isolate`). `x - mean` is read by them and
    by the output too, and XLA would make an array of it; and their last bits would depend on the
    residuals of the program around.
    """
    return _standardize(axes, devices, epsilon, x, scale, bias)[0]


def _standardize(axes, devices, epsilon, x, scale, bias):
    rows = jax.eval_shape(functools.partial(_moments, axes, ()), (), x)
    mean, var = isolate(functools.partial(_moments, axes, devices), _zeros(rows), x)
    rate = jax.lax.rsqrt(var + epsilon)
    y = (x.astype(jnp.float32) - mean) * (scale * rate) + bias
    return (narrow(y, x.dtype), mean, var), (x, mean, rate, scale)


def _moments(axes, devices, carry, x):
    """Mean and variance."""
    del carry
    wide = x.astype(jnp.float32)
    mean = _mean(wide, axes, devices)
    return mean, _mean(jnp.square(wide - mean), axes, devices)


def _gradient_means(axes, devices, carry, x, g, mean, rate):
    """Means of `g` and `g * n`."""
    del carry
    n = (x.astype(jnp.float32) - mean) * rate
    return _mean(g, axes, devices), _mean(g * n, axes, devices)


def _zeros(rows):
    return jax.tree.map(lambda row: jnp.zeros(row.shape, jnp.float32), rows)


def _mean(x, axes, devices):
    """Sums of blocks of neighbouring examples, then of all blocks, on however many devices.

    The last bit of a sum depends on its order, and a last bit can move an output to the next point
    of the grid of a reversible stream, or flip a spike. In blocks fewer do; none would if compilers
    summed a block alike wherever it lies.
    """
    batch = next(axis for axis in axes if axis)  # time is axis 0
    shares = jax.lax.psum(1, devices) if devices else 1
    count = shares * math.prod(x.shape[axis] for axis in axes)
    blocks = _blocks(x.shape[batch], shares)
    x = x.reshape(*x.shape[:batch], blocks, -1, *x.shape[batch + 1 :])
    within = tuple(axis + (axis >= batch) for axis in axes)
    sums = x.sum(within, keepdims=True).squeeze(batch + 1)
    if devices:
        sums = jax.lax.all_gather(sums, devices, axis=batch, tiled=True)
    # Two sums in a row are one to the compiler, in an order of its own.
    return jax.lax.optimization_barrier(sums).sum(batch, keepdims=True) / count


def _blocks(examples: int, devices: int) -> int:
    """Blocks on each device: their size depends on the whole batch alone where that can be."""
    whole = math.gcd(examples * devices, _BLOCKS)
    return max(1, whole // devices) if whole % devices == 0 else 1


def _standardize_backward(axes, devices, epsilon, residuals, cotangents):
    del epsilon
    x, mean, rate, scale = residuals
    g = cotangents[0].astype(jnp.float32)
    means = functools.partial(_gradient_means, axes, devices)
    mean_g, mean_gn = isolate(means, _zeros((mean, mean)), x, g, mean, rate)
    n = (x.astype(jnp.float32) - mean) * rate
    g_x = scale * rate * (g - mean_g - n * mean_gn)
    # One row of means per timestep or one in all; each stands for so many elements.
    count = x.size // mean.size
    g_scale, g_bias = (
        count * part.reshape(-1, part.shape[-1]).sum(0) for part in (mean_gn, mean_g)
    )
    return narrow(g_x, x.dtype), g_scale, g_bias


_batch_norm.defvjp(_standardize, _standardize_backward)


def GroupNorm(channels: int, groups: int, *, rngs: nnx.Rngs, epsilon: float = 1e-5) -> Fold:
    """Group normalisation per timestep and example (`flax.nnx.GroupNorm`); no statistics to carry.

    Reference:
        Wu and He, "Group Normalization", 2018, arXiv:1803.08494.
    """
    module = nnx.GroupNorm(channels, num_groups=groups, epsilon=epsilon, rngs=rngs)
    return Fold(module, name="groupnorm")


def LayerNorm(channels: int, *, rngs: nnx.Rngs, epsilon: float = 1e-5) -> Fold:
    """Layer normalisation over channels, per timestep, example and place (`flax.nnx.LayerNorm`).

    Reference:
        Ba, Kiros, Hinton, "Layer Normalization", 2016, arXiv:1607.06450.
    """
    return Fold(nnx.LayerNorm(channels, epsilon=epsilon, rngs=rngs), name="layernorm")


def never_updated(body: Any, statistics: PyTree) -> bool:
    """True if all running statistics still have their initial values, as far as they are known.

    Arguments of a compiled function are not known while it is traced; statistics made inside of it
    are. A network without batch norm, or with frozen ones only, has none to update.
    """
    is_node = lambda node: isinstance(node, Statistics)  # noqa: E731
    nodes = [node for node in jax.tree.leaves(statistics, is_leaf=is_node) if is_node(node)]
    if not nodes or not all(_is_initial(node) for node in nodes):
        return False
    norms = (m for _, m in nnx.iter_modules(body) if isinstance(m, BatchNorm))
    return any(norm.over != "frozen" for norm in norms)


def _is_initial(statistics: Statistics) -> bool:
    try:
        mean, var = map(np.asarray, statistics)
    except jax.errors.TracerArrayConversionError:
        return False
    return bool((mean == 0).all() and (var == 1).all())


def refuse_window_statistics(body: Any) -> None:
    """For layers that run timestep by timestep: no `BatchNorm(over="window")` inside.

    Raises:
        ValueError: there is one; by itself it would quietly normalise each step alone.
    """
    norms = [m for _, m in nnx.iter_modules(body) if isinstance(m, BatchNorm)]
    if any(norm.over == "window" for norm in norms):
        raise ValueError(
            'BatchNorm(over="window") needs all timesteps at once, and order="time" and nn.Shared '
            'run one after the other: use over="step" or over="frozen", or order="layer"'
        )
