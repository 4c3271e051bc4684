"""Normalisation whose running statistics are inputs and outputs, never hidden state.

    y = gain * scale * (x - mean) / sqrt(var + epsilon) + bias

The option `over` selects the elements of `mean` and `var`:

    "window"   T, B and space: the usual batch norm of deep spiking nets; needs all timesteps
    "step"     B and space of each timestep; the only batch statistics available when a network is
               scanned over time
    "frozen"   none: always the running statistics

`gain = alpha * threshold` gives threshold-dependent batch norm (tdBN). `groups > 1` gives ghost
batch norm: the batch is cut into groups of neighbouring examples, each normalised by its own
statistics; running statistics move towards the mean over groups.

Padded timesteps of sequences of different lengths enter no statistics of `over="window"`, and are 0
behind the norm. `over="step"` is refused with them: late timesteps would have few examples.

Running statistics move once per call of the network, under every memory strategy. Networks written
in PyTorch may differ in three ways, each an option:

    torch                                        here
    running variance with N / (N - 1)            unbiased=True
    a norm called at each of T timesteps         over="step", update="step"
    a norm run twice, by a reversible backward   momentum=0.81, for 0.9 twice

References: Ioffe and Szegedy, "Batch Normalization", 2015, arXiv:1502.03167; Zheng, Wu, Deng, Hu,
Li, "Going Deeper With Directly-Trained Larger Spiking Neural Networks", 2021, arXiv:2011.05280;
Hoffer, Hubara, Soudry, "Train longer, generalize better: closing the generalization gap in large
batch training of neural networks", 2017, arXiv:1705.08741 (ghost batch norm).
"""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax.nn._checks import check_rngs
from snnjax.nn.contract import Aux, Call, InitialState, State, Statistics, StepStatistics
from snnjax.nn.synapses import Fold
from snnjax.ops.arguments import as_floating, check_choice, check_counts, check_numbers
from snnjax.ops.isolate import isolate
from snnjax.ops.padding import mask
from snnjax.ops.rounding import accumulation_dtype, narrow, widen
from snnjax.typing import Array

__all__ = [
    "BatchNorm",
    "GroupNorm",
    "LayerNorm",
    "never_updated",
    "refuse_step_statistics",
    "refuse_window_statistics",
    "updates_statistics",
]

_OVER = ("window", "step", "frozen")
_UPDATES = ("call", "step")
# Number of partial sums of a batch. The summation order is the same on up to so many devices.
_BLOCKS = 64


class BatchNorm(nnx.Module):
    """Batch normalisation of `[T, B, ..., C]`; updated running statistics are in `aux.statistics`.

        y = gain * scale * (x - mean) / sqrt(var + epsilon) + bias
        running <- momentum * running + (1 - momentum) * (mean, var)          in training

    In training, mean and (biased) variance are those of the batch, over T, B and space
    (`over="window"`) or over B and space of each timestep (`over="step"`). In evaluation, and with
    `over="frozen"`, they are the running ones, which stay unchanged. Inputs x and outputs y
    `[T, B, ..., C]` have one dtype, and means and sums are float32, or float64 for float64 inputs.
    Scale and bias `[C]` are float32, statistics `[C]` the default float. The derivative keeps the
    inputs and two numbers per channel; in training there is no forward mode.

    Args:
        channels: `C`.
        over: elements of the batch statistics, `"window"`, `"step"` or `"frozen"`.
        momentum: weight of the *old* running value (PyTorch's 0.1 is 0.9 here).
        update: `"call"` moves the running values once per call, towards the mean of the statistics
            of all timesteps; `"step"` once per timestep, in order, as a PyTorch norm called T times
            does: over T steps they move by `1 - momentum^T`. Needs `over="step"`.
        unbiased: use the variance times `N / (N - 1)` for the running variance, as PyTorch does
            (N elements per channel); outputs in training stay those of the biased variance.
        epsilon: constant added to the variance.
        gain: fixed factor; `alpha * threshold` for tdBN.
        scale: initial value of the learned scale; 0 starts a residual branch at zero.
        groups: number of parts of the batch with separate statistics in training (ghost batch
            norm).
        axes: mesh axes that share the batch inside `jax.shard_map`; statistics are then taken over
            all devices (see `nn.data_parallel.with_data_axes`).

    Raises:
        ValueError: an unknown `over` or `update`, or a number out of range; `update="step"` without
            `over="step"`; inputs with another number of channels, a batch that `groups` does not
            divide, `unbiased` with one element per channel, or lengths in training with
            `over="step"` (on a call).

    Reference:
        Ioffe and Szegedy, "Batch Normalization", 2015, arXiv:1502.03167. tdBN: Zheng, Wu, Deng, Hu,
        Li, "Going Deeper With Directly-Trained Larger Spiking Neural Networks", 2021,
        arXiv:2011.05280.
    """

    def __init__(
        self,
        channels: int,
        *,
        over: str = "window",
        groups: int = 1,
        axes: tuple[str, ...] = (),
        momentum: float = 0.9,
        update: str = "call",
        unbiased: bool = False,
        epsilon: float = 1e-5,
        gain: float = 1.0,
        scale: float = 1.0,
    ):
        check_choice("nn.BatchNorm", choices=_OVER, over=over)
        check_counts("nn.BatchNorm", channels=channels, groups=groups)
        check_numbers("nn.BatchNorm", least=0, most=1, momentum=momentum)
        check_numbers("nn.BatchNorm", least=0, epsilon=epsilon)
        check_numbers("nn.BatchNorm", gain=gain, scale=scale)
        if update not in _UPDATES or (update == "step" and over != "step"):
            raise ValueError(
                f"update must be 'call', or 'step' with over='step', got {update!r} with {over!r}"
            )
        self.update, self.unbiased = update, unbiased
        self.channels, self.over, self.momentum = channels, over, momentum
        self.epsilon, self.gain, self.name = epsilon, gain, "batchnorm"
        self.groups, self.axes = groups, axes
        self.scale = nnx.Param(jnp.full(channels, scale, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Running mean 0 and variance 1."""
        del shape
        # In the default float: float64 under `jax_enable_x64`, so that means keep their digits.
        ones = jnp.ones(self.channels, jnp.result_type(float))
        return State((), self._statistics(jnp.zeros_like(ones), ones))

    def _statistics(self, mean: Any, var: Any) -> Any:
        # Timesteps of a shared membrane are calls of their own: the node tells how to join them.
        if self.update == "step":
            return StepStatistics(mean, var, self.momentum)
        return Statistics(mean, var)

    def infer_shape(self, state: State, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Shape of the inputs; None if a call refuses them."""
        del state
        return tuple(shape) if len(shape) > 1 and shape[-1] == self.channels else None

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Normalises `[T, B, ..., C]`."""
        inputs = as_floating("nn.BatchNorm", inputs)
        if inputs.ndim < 3 or inputs.shape[-1] != self.channels:
            raise ValueError(
                f"this batch norm takes [T, B, ..., {self.channels}], got {list(inputs.shape)}: "
                f"nn.BatchNorm({inputs.shape[-1]}) fits these inputs"
            )
        running = state.statistics
        if not call.training or self.over == "frozen":
            # Returned unchanged, so that `state.after(aux)` is right in evaluation, too.
            return self._normalize(inputs, running.mean, running.var), Aux((), running)
        grouped, first = self._split_groups(inputs)
        if call.lengths is not None:
            refuse_step_statistics(self)
        valid = _valid(grouped, first, call.lengths)
        time = () if self.over == "step" else (0,)
        # Cast, since strict promotion refuses to mix float32 parameters with float64 inputs.
        wide = accumulation_dtype(inputs.dtype)
        scale = self.gain * self.scale[...].astype(wide)
        # Time and space, but not the groups: each has its own statistics.
        within = (*time, *range(first, grouped.ndim - 1))
        over = (within, self.axes, self.epsilon)
        normal = _batch_norm(*over, grouped, scale, self.bias[...].astype(wide), valid)
        outputs, mean, var = normal  # type: ignore[misc]  # custom_vjp hides the type
        if self.unbiased:
            count = grouped.size // mean.size
            var = var * (
                self._correction(count)
                if valid is None
                else _unbias(_count(valid, grouped, within, self.axes))
            )
        moved = self._move((running.mean, running.var), (mean, var))
        statistics = jax.lax.stop_gradient(self._statistics(*moved))
        return outputs.reshape(inputs.shape), Aux((), statistics)

    def _move(self, running: tuple[Array, Array], batch: tuple[Array, Array]) -> list[Array]:
        """Running mean and variance after a call, from those of the batch."""
        # One row per group and, with over="step", per timestep.
        if self.update == "call":
            steps = [[s.reshape(-1, self.channels).mean(0)] for s in batch]
        else:
            # Groups of one timestep are one update; T is small enough to unroll.
            steps = [list(s.reshape(-1, self.groups, self.channels).mean(1)) for s in batch]
        moved = []
        for old, updates in zip(running, steps, strict=True):
            for new in updates:
                # One product instead of two: of two, the compiler would choose one to fuse with
                # the sum.
                old = old + (1 - self.momentum) * (new.astype(old.dtype) - old)
            moved.append(old)
        return moved

    def _correction(self, count: int) -> float:
        """`N / (N - 1)` for N elements per channel, over all devices."""
        # Axis sizes are static numbers inside `jax.shard_map`.
        count *= jax.lax.psum(1, self.axes) if self.axes else 1
        if count < 2:
            raise ValueError(
                "one element per channel has no unbiased variance: give a larger batch, or "
                "unbiased=False"
            )
        return count / (count - 1)

    def _split_groups(self, inputs: Array) -> tuple[Array, int]:
        """Inputs as `[T, groups, B / groups, ..., C]`, and the number of the first batch axis."""
        if self.groups == 1:
            return inputs, 1
        steps, batch, *space = inputs.shape
        if batch % self.groups:
            raise ValueError(
                f"{self.groups} groups do not divide a batch of {batch}: choose groups that do"
            )
        return inputs.reshape(steps, self.groups, batch // self.groups, *space), 2

    def _normalize(self, inputs: Array, mean: Array, var: Array) -> Array:
        x = widen(inputs)
        own = (self.scale[...], self.bias[...], mean, var)
        scale, bias, mean, var = (jnp.asarray(a).astype(x.dtype) for a in own)
        factor = self.gain * scale * jax.lax.rsqrt(var + self.epsilon)
        outputs = (x - mean) * factor + bias
        return narrow(outputs, inputs.dtype)


def _valid(grouped: Array, first: int, lengths: Array | None) -> Array | None:
    """Mask of the valid timesteps, broadcastable to the inputs in groups; None is all."""
    if lengths is None:
        return None
    shape = (*grouped.shape[: first + 1], *[1] * (grouped.ndim - first - 1))
    return mask(lengths, len(grouped)).reshape(shape)


def _unbias(count: Array) -> Array:
    """`N / (N - 1)` for counts of valid elements; 1 for a single one, whose variance is 0."""
    return count / jnp.maximum(count - 1, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _batch_norm(axes, devices, epsilon, x, scale, bias, valid) -> tuple[Array, Array, Array]:
    """`(scale * n + bias, mean, var)` with `n = (x - mean) * r`, `r = 1 / sqrt(var + epsilon)`.

    The derivative keeps `x` and two numbers per channel. It is one expression under every memory
    strategy, so that XLA rounds it the same way:

        dx = scale * r * (g - mean(g) - n * mean(g * n)),   dscale = sum(g * n),   dbias = sum(g)

    Mean and variance are returned as statistics only, and their cotangents are ignored. Means run
    over `devices`, too; the sums dscale and dbias are those of one device. With a mask `valid` all
    means and sums are those of valid elements, and the output of the others is 0.

    On a CPU the means are computed in isolation (`ops.isolate`). Otherwise XLA would write
    `x - mean` to memory, since means and output both read it, and the last bits of the means would
    depend on the residuals of the surrounding program.
    """
    return _standardize(axes, devices, epsilon, x, scale, bias, valid)[0]


def _standardize(axes, devices, epsilon, x, scale, bias, valid):
    # `isolate` carries its results and needs their shapes; one device has the same shapes.
    rows = jax.eval_shape(functools.partial(_moments, axes, ()), (), x, valid)
    mean, var = isolate(functools.partial(_moments, axes, devices), _zeros(rows), x, valid)
    rate = jax.lax.rsqrt(var + epsilon)
    y = _masked((widen(x) - mean) * (scale * rate) + bias, valid)
    return (narrow(y, x.dtype), mean, var), (x, mean, rate, scale, valid)


def _moments(axes, devices, carry, x, valid):
    """Mean and biased variance over `axes`, in at least float32."""
    del carry
    wide = widen(x)
    mean = _mean(wide, axes, devices, valid)
    return mean, _mean(jnp.square(wide - mean), axes, devices, valid)


def _gradient_means(axes, devices, carry, x, g, mean, rate, valid):
    """Means of `g` and of `g * n`, for the derivative."""
    del carry
    n = (widen(x) - mean) * rate
    return _mean(g, axes, devices, valid), _mean(g * n, axes, devices, valid)


def _zeros(rows):
    return jax.tree.map(lambda row: jnp.zeros(row.shape, row.dtype), rows)


def _masked(x, valid):
    # `where` and not a product: padding may hold anything.
    return x if valid is None else jnp.where(valid, x, 0)


def _count(valid, x, axes, devices):
    """Number of valid elements that a mean over `axes` takes, over all devices; at least 1."""
    each = math.prod(x.shape[axis] for axis in axes if valid.shape[axis] == 1)
    count = each * valid.sum(axes, keepdims=True, dtype=jnp.int32)
    count = jax.lax.psum(count, devices) if devices else count
    return jnp.maximum(count, 1).astype(accumulation_dtype(x.dtype))


def _mean(x, axes, devices, valid):
    """Mean by sums over blocks of neighbouring examples, then over blocks and devices.

    The last bit of a sum depends on its order, and a difference in the last bit can move an output
    to the next grid point of a reversible stream, or flip a spike. Blockwise summation makes such
    differences between numbers of devices rarer. It cannot exclude them, since a compiler may sum
    equal blocks in different orders.
    """
    batch = next(axis for axis in axes if axis)  # the first axis behind time
    shares = jax.lax.psum(1, devices) if devices else 1
    if valid is None:
        count = shares * math.prod(x.shape[axis] for axis in axes)
    else:
        count, x = _count(valid, x, axes, devices), _masked(x, valid)
    blocks = _blocks(x.shape[batch], shares)
    x = x.reshape(*x.shape[:batch], blocks, -1, *x.shape[batch + 1 :])
    within = tuple(axis + (axis >= batch) for axis in axes)
    sums = x.sum(within, keepdims=True).squeeze(batch + 1)
    if devices:
        # Block sums of all devices in order of the batch, as one device would have them.
        sums = jax.lax.all_gather(sums, devices, axis=batch, tiled=True)
    # Without the barrier the compiler merges the two sums and chooses their order.
    return jax.lax.optimization_barrier(sums).sum(batch, keepdims=True) / count


def _blocks(examples: int, devices: int) -> int:
    """Number of blocks per device; if possible their size depends on the global batch only."""
    total = math.gcd(examples * devices, _BLOCKS)
    return max(1, total // devices) if total % devices == 0 else 1


def _standardize_backward(axes, devices, epsilon, residuals, cotangents):
    del epsilon
    x, mean, rate, scale, valid = residuals
    # Cotangents of mean and variance are ignored: running statistics are no part of a loss.
    g = widen(cotangents[0])
    means = functools.partial(_gradient_means, axes, devices)
    mean_g, mean_gn = isolate(means, _zeros((mean, mean)), x, g, mean, rate, valid)
    n = (widen(x) - mean) * rate
    g_x = _masked(scale * rate * (g - mean_g - n * mean_gn), valid)
    # `mean` has one row per timestep and group, or one in all; each averages `count` elements.
    count = x.size // mean.size
    if valid is not None:
        # Groups differ in their counts, which join the means before the sum over groups.
        counts = _count(valid, x, axes, devices)
        shares = jax.lax.psum(1, devices) if devices else 1
        count, mean_gn, mean_g = 1, counts * mean_gn / shares, counts * mean_g / shares
    g_scale, g_bias = (
        count * part.reshape(-1, part.shape[-1]).sum(0) for part in (mean_gn, mean_g)
    )
    # A mask has no gradient.
    return narrow(g_x, x.dtype), g_scale, g_bias, None


_batch_norm.defvjp(_standardize, _standardize_backward)


def GroupNorm(channels: int, groups: int, *, rngs: nnx.Rngs, epsilon: float = 1e-5) -> Fold:
    """Group normalisation of `[T, B, ..., C]`, without running statistics.

        y = scale * (x - mean) / sqrt(var + epsilon) + bias

    Mean and variance run over space and one of `groups` channel groups, per timestep and example.

    Args:
        channels: `C`.
        groups: number of channel groups; must divide the channels.
        rngs: random streams; scale starts at 1 and bias at 0.
        epsilon: constant added to the variance.

    Raises:
        ValueError: the groups do not divide the channels.

    Reference:
        Wu and He, "Group Normalization", 2018, arXiv:1803.08494.
    """
    check_counts("nn.GroupNorm", channels=channels, groups=groups)
    check_numbers("nn.GroupNorm", least=0, epsilon=epsilon)
    check_rngs("nn.GroupNorm", rngs)
    if channels % groups:
        raise ValueError(
            f"{channels} channels cannot be divided into {groups} groups: choose a divisor"
        )
    return Fold(
        GroupStandardization(channels, groups, epsilon=epsilon, rngs=rngs), name="groupnorm"
    )


def LayerNorm(channels: int, *, rngs: nnx.Rngs, epsilon: float = 1e-5) -> Fold:
    """Layer normalisation of `[T, B, ..., C]`, without running statistics.

        y = scale * (x - mean) / sqrt(var + epsilon) + bias

    Mean and variance run over channels, per timestep, example and position.

    Args:
        channels: `C`.
        rngs: random streams; scale starts at 1 and bias at 0.
        epsilon: constant added to the variance.

    Reference:
        Ba, Kiros, Hinton, "Layer Normalization", 2016, arXiv:1607.06450.
    """
    check_counts("nn.LayerNorm", channels=channels)
    check_numbers("nn.LayerNorm", least=0, epsilon=epsilon)
    check_rngs("nn.LayerNorm", rngs)
    return Fold(GroupStandardization(channels, None, epsilon=epsilon, rngs=rngs), name="layernorm")


class GroupStandardization(nnx.Module):
    """Normalisation of each example by itself, `[N, ..., C] -> [N, ..., C]`.

    Args:
        channels: `C`.
        groups: number of channel groups, each normalised over space and its channels; None
            normalises each position over all channels.
        epsilon: constant added to the variance.
        rngs: random streams.
    """

    # By this attribute `snnjax.cost` recognises vectors that are no weights, also when stacked.
    normalizes: ClassVar[bool] = True

    def __init__(self, channels: int, groups: int | None, *, epsilon: float, rngs: nnx.Rngs):
        self.groups, self.epsilon = groups, epsilon
        # Keys are drawn as Flax's norms draw them, so that later layers keep their numbers.
        ones, zeros = nnx.initializers.ones, nnx.initializers.zeros
        self.scale = nnx.Param(ones(rngs.params(), (channels,), jnp.float32))
        self.bias = nnx.Param(zeros(rngs.params(), (channels,), jnp.float32))

    def __call__(self, inputs: Array) -> Array:
        """Normalises examples."""
        shape = inputs.shape
        if self.groups is None:
            axes: tuple[int, ...] = (-1,)
        else:
            inputs = inputs.reshape(*shape[:-1], self.groups, -1)
            axes = (*range(1, inputs.ndim - 2), -1)
        centred = inputs - inputs.mean(axes, keepdims=True)
        # The mean of large numbers is rounded, perhaps by more than their standard deviation; the
        # mean of the differences is the error. It is a constant: dn/dx removes any mean.
        centred = centred - jax.lax.stop_gradient(centred.mean(axes, keepdims=True))
        # From the differences: mean(x^2) - mean(x)^2 would be a difference of large numbers.
        rate = jax.lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + self.epsilon)
        outputs = (centred * rate).reshape(shape)
        scale, bias = (p[...].astype(outputs.dtype) for p in (self.scale, self.bias))
        return outputs * scale + bias


def updates_statistics(body: Any) -> bool:
    """True if training moves running statistics: there is a batch norm that is not frozen.

    Args:
        body: module to search.
    """
    norms = (m for _, m in nnx.iter_modules(body) if isinstance(m, BatchNorm))
    return any(norm.over != "frozen" for norm in norms)


def never_updated(body: Any, state: State) -> bool:
    """True if the running statistics of a state are known to have their initial values.

    Known by the type of the state, also in a compiled function, or by the values of arrays that are
    not traced. The result is False for networks without batch norm, or with frozen ones only.

    Args:
        body: module to search for batch norms.
        state: state of the module.
    """
    if isinstance(state, InitialState):
        return True
    is_node = lambda node: isinstance(node, Statistics | StepStatistics)  # noqa: E731
    nodes = [node for node in jax.tree.leaves(state.statistics, is_leaf=is_node) if is_node(node)]
    return bool(nodes) and all(_is_initial(node) for node in nodes) and updates_statistics(body)


def _is_initial(statistics: Statistics | StepStatistics) -> bool:
    try:
        mean, var = map(np.asarray, (statistics.mean, statistics.var))
    except jax.errors.TracerArrayConversionError:
        return False
    return bool((mean == 0).all() and (var == 1).all())


def refuse_window_statistics(body: Any) -> None:
    """Refuses `BatchNorm(over="window")` in modules that run timestep by timestep.

    Args:
        body: module to search.

    Raises:
        ValueError: a batch norm over the window, which would silently normalise single timesteps.
    """
    norms = [m for _, m in nnx.iter_modules(body) if isinstance(m, BatchNorm)]
    if any(norm.over == "window" for norm in norms):
        raise ValueError(
            'BatchNorm(over="window") needs all timesteps at once, and order="time" and nn.Shared '
            'run them one by one: use over="step" or over="frozen", or order="layer"'
        )


def refuse_step_statistics(body: Any) -> None:
    """Refuses `BatchNorm(over="step")` in training on padded sequences.

    Args:
        body: module to search.

    Raises:
        ValueError: a batch norm over single timesteps, of which late ones have few examples.
    """
    norms = [m for _, m in nnx.iter_modules(body) if isinstance(m, BatchNorm)]
    if any(norm.over == "step" for norm in norms):
        raise ValueError(
            'nn.BatchNorm(over="step") takes no lengths in training, since late timesteps have few '
            'examples: use over="window", over="frozen" or nn.LayerNorm'
        )
