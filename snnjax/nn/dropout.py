"""Dropout with one mask for all timesteps.

    y[t] = x[t] * m / (1 - rate),   m ~ Bernoulli(1 - rate), the same at every t

The effect of a new mask per timestep would average out over the window. The key is an argument, so
recomputation draws the same mask.

Reference: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout", JMLR 2014.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, no_state, stateless_result
from snnjax.nn.data_parallel import local_rows
from snnjax.ops.arguments import as_floating, check_flags, check_numbers
from snnjax.ops.rounding import narrow, widen
from snnjax.typing import Array

__all__ = ["Dropout"]


class Dropout(nnx.Module):
    """Sets elements of `[T, B, ...]` to 0 with probability `rate`, in training only.

        y[t] = x[t] * m / (1 - rate),   m ~ Bernoulli(1 - rate) of shape [B, ...], equal at all t

    Args:
        rate: probability, in [0, 1).
        each_step: draw a new mask at every timestep, `[T, B, ...]`; all timesteps must then be in
            one call.

    Raises:
        ValueError: `rate` is outside [0, 1), or a training call has no key.

    Reference:
        Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout", JMLR 2014.
    """

    def __init__(self, rate: float, *, each_step: bool = False):
        check_numbers("nn.Dropout", least=0, below=1, rate=rate)
        check_flags("nn.Dropout", each_step=each_step)
        self.rate, self.each_step, self.name = rate, each_step, "dropout"
        self.axes: tuple[str, ...] = ()  # see nn.data_parallel.with_data_axes

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Outputs are spikes only at rate 0: others are scaled by `1 / (1 - rate)`."""
        return Placed(self, request.spiking and self.rate == 0)

    initial_state = no_state

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Drops entries of `[T, B, ...]` in training."""
        inputs = as_floating("nn.Dropout", inputs)
        if not call.training or self.rate == 0:
            return stateless_result(inputs)
        if call.key is None:
            raise ValueError("dropout draws random numbers in training: call the network with key=")
        draw = functools.partial(jax.random.bernoulli, call.key, 1 - self.rate)
        # Without a time axis the mask broadcasts over time.
        shape, batch_axis = (inputs.shape, 1) if self.each_step else (inputs.shape[1:], 0)
        mask = local_rows(draw, shape, axis=batch_axis, axes=self.axes)
        scaled = narrow(widen(inputs) / (1 - self.rate), inputs.dtype)
        return stateless_result(jnp.where(mask, scaled, 0))
