"""Neurons of norse (`norse.torch.functional.lif_box`)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from snnjax import surrogate
from snnjax.neurons.decay import euler_decay
from snnjax.neurons.lif import lif_model
from snnjax.neurons.model import Model
from snnjax.neurons.reset import to
from snnjax.surrogate import Surrogate

__all__ = ["norse_lif_box"]

# Derivative of norse's method "super".
_SUPER = surrogate.fast_sigmoid(alpha=1.0)


def norse_lif_box(
    *,
    tau_mem_inv: float = 100.0,
    v_leak: float = 0.0,
    v_th: float = 1.0,
    v_reset: float = 0.0,
    dt: float = 0.001,
    spike: Surrogate = _SUPER,
    dtype=jnp.float32,
) -> Model:
    """Model of `norse.torch.functional.lif_box.lif_box_feed_forward_step` with `LIFBoxParameters`.

    Theirs: `h = v + dt * tau_mem_inv * (x + v_leak - v)`, fires at `h > v_th`, differentiable hard
    reset to `v_reset`. Ours: `lif` with `decay = 1 - dt * tau_mem_inv`, `scale_input`, membrane
    minus `v_leak`, reset `to(v_reset - v_leak)`. The resting state is their `v = v_leak`.

    Args:
        tau_mem_inv: inverse time constant, in the inverse unit of `dt`.
        v_leak: resting potential.
        v_th: threshold; fires strictly above it.
        v_reset: membrane potential after a spike.
        dt: length of a timestep.
        spike: surrogate, made strict here. The default is their method "super", whose derivative
            in 1.1.0 is `1 / (1 + |u|)^2` for every `alpha`.
        dtype: dtype of the parameters.

    Raises:
        ValueError: `dt * tau_mem_inv` is above 1 or not positive.
    """
    model = lif_model(
        decay=jnp.asarray(euler_decay(1 / tau_mem_inv, dt=dt), dtype),
        threshold=jnp.asarray(v_th - v_leak, dtype),
        # norse fires above the threshold, our surrogates fire at it as well.
        spike=surrogate.strict(spike),
        reset=to(v_reset - v_leak),
        scale_input=True,
    )
    return dataclasses.replace(model, rest=v_leak)
