"""Neurons of snntorch (`snntorch.Leaky`, `snntorch.Synaptic`)."""

from __future__ import annotations

import jax.numpy as jnp

from snnjax import surrogate
from snnjax.neurons.cuba_lif import cuba_lif_model
from snnjax.neurons.lif import lif_model
from snnjax.neurons.model import Model
from snnjax.neurons.reset import Reset, delayed, detached, none, subtract, zero
from snnjax.surrogate import Surrogate

__all__ = ["snntorch_leaky", "snntorch_synaptic"]

# Their default surrogate, `surrogate.atan(alpha=2)`.
_ARCTAN = surrogate.arctan(alpha=2.0)
_MECHANISMS = {"subtract": subtract, "zero": zero, "none": none}


def snntorch_leaky(
    beta: float,
    *,
    threshold: float = 1.0,
    reset_mechanism: str = "subtract",
    reset_delay: bool = True,
    spike: Surrogate = _ARCTAN,
    dtype=jnp.float32,
) -> Model:
    """Model of `snntorch.Leaky`.

    Theirs: `mem = beta * mem + x - rst * threshold` with `rst = [mem > threshold]` of the previous
    step, never differentiated ("zero": `beta * (1 - rst) * mem + x`); fires at `mem > threshold`.
    Ours: `lif` with `delayed(detached(rule))`, whose state is the membrane before the reset. With
    `reset_delay=False` theirs resets in the same step and differentiates the reset; ours is then
    the plain rule. It is exact for "zero" and "none", and for "subtract" as long as every membrane
    charges below twice the threshold: above it their reset leaves the membrane over the threshold,
    and they subtract once more before the next spike.

    Args:
        beta: decay per timestep, clipped to [0, 1] as theirs is.
        threshold: membrane potential; fires strictly above it.
        reset_mechanism: "subtract", "zero" or "none".
        reset_delay: reset at the next step.
        spike: surrogate, made strict here; their default is `surrogate.atan(alpha=2)`.
        dtype: dtype of the parameters.

    Raises:
        ValueError: an unknown `reset_mechanism`.
    """
    return lif_model(
        decay=_clip(beta, dtype),
        threshold=jnp.asarray(threshold, dtype),
        # Theirs fires strictly above the threshold, ours at it.
        spike=surrogate.strict(spike),
        reset=_reset(reset_mechanism, reset_delay),
    )


def snntorch_synaptic(
    alpha: float,
    beta: float,
    *,
    threshold: float = 1.0,
    reset_mechanism: str = "subtract",
    reset_delay: bool = True,
    spike: Surrogate = _ARCTAN,
    dtype=jnp.float32,
) -> Model:
    """Model of `snntorch.Synaptic`: `syn = alpha * syn + x` charges a `Leaky`; our `cuba_lif`.

    Args:
        alpha: decay of the synaptic current per timestep, our `synaptic_decay`, clipped to [0, 1].
        beta: decay of the membrane per timestep, our `decay`, clipped to [0, 1].
        threshold: as for `snntorch_leaky`.
        reset_mechanism: as for `snntorch_leaky`.
        reset_delay: as for `snntorch_leaky`.
        spike: as for `snntorch_leaky`.
        dtype: dtype of the parameters.

    Raises:
        ValueError: an unknown `reset_mechanism`.
    """
    return cuba_lif_model(
        decay=_clip(beta, dtype),
        synaptic_decay=_clip(alpha, dtype),
        threshold=jnp.asarray(threshold, dtype),
        # As in `snntorch_leaky`: theirs fires strictly above the threshold.
        spike=surrogate.strict(spike),
        reset=_reset(reset_mechanism, reset_delay),
    )


def _clip(decay: float, dtype):
    return jnp.asarray(min(max(decay, 0.0), 1.0), dtype)


def _reset(mechanism: str, delay: bool) -> Reset:
    if mechanism not in _MECHANISMS:
        raise ValueError(
            f"reset_mechanism must be one of {', '.join(_MECHANISMS)}, got {mechanism!r}"
        )
    reset = _MECHANISMS[mechanism]
    # They detach the delayed reset only.
    return delayed(detached(reset)) if delay else reset
