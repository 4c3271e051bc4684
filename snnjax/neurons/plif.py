"""The parametric leaky integrate-and-fire neuron (PLIF): a LIF that learns its decay.

    decay = 1 - sigmoid(w)           1 / tau = sigmoid(w) lies in (0, 1) for every w
    h[t]  = decay * v[t-1] + (1 - decay) * x[t]      (`scale_input=False` drops the factor)

Reference: Fang, Yu, Chen, Masquelier, Huang, Tian, "Incorporating Learnable Membrane Time Constant
to Enhance Learning of Spiking Neural Networks", 2021, arXiv:2007.05785.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.neurons._inverses import inverse_or_refusal, smallest
from snnjax.neurons.lif import (
    LIFFunction,
    LIFParams,
    LIFState,
    lif,
    lif_inverse,
    lif_scan,
    lif_state,
)
from snnjax.neurons.model import Model, Parameter, Refusal, Sequence, bind_sequence, check_options
from snnjax.neurons.reset import Reset, subtract
from snnjax.ops.arguments import check_numbers
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array, bind

__all__ = ["PLIFParams", "plif", "plif_decay", "plif_model", "plif_weight"]


class PLIFParams(NamedTuple):
    """Parameters of `plif`, each a scalar or an array that broadcasts against one timestep.

    Attributes:
        w: logit of the leak, `1 / tau = sigmoid(w)`. See `plif_weight`.
        threshold: membrane potential at which the neuron fires.
    """

    w: Parameter
    threshold: Parameter


def plif_weight(decay: Parameter) -> Parameter:
    """The weight `w` of a decay per timestep: `log((1 - decay) / decay)`, of a number or an array.

    Raises:
        ValueError: `decay` is not inside (0, 1).
    """
    if isinstance(decay, jax.Array | np.ndarray):
        check_numbers("a learned decay starts inside (0, 1)", above=0, below=1, decay=decay)
        return jnp.log((1 - decay) / decay)
    if not 0 < decay < 1:
        raise ValueError(f"a learned decay starts inside (0, 1), got {decay}")
    # By `math`, not `jnp`: the parameter stays a plain number until a layer makes an array of it.
    return math.log((1 - decay) / decay)


def plif_decay(w: Any) -> Array:
    """The decay per timestep of a weight, `1 - sigmoid(w)`; the inverse of `plif_weight`."""
    return 1 - jax.nn.sigmoid(w)


def plif(
    params: PLIFParams,
    state: LIFState,
    current: Array,
    *,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = True,
) -> tuple[LIFState, Array]:
    """One timestep of parametric LIF neurons, `lif` with `decay = 1 - sigmoid(w)`.

        h[t] = decay * v[t-1] + g * x[t]        g = 1 - decay, or 1 without `scale_input`
        s[t] = [h[t] >= threshold]              derivative: the surrogate's
        v[t] = h[t] - s[t] * threshold          or another rule of `reset`

    Args:
        params: `w` (logit of the leak) and `threshold` (membrane potential).
        state: membrane potential after the last step, `[B, ...]`.
        current: input current, `[B, ...]`, in units of the membrane potential per timestep.
        spike: spike function and its surrogate derivative.
        reset: effect of a spike on the membrane potential.
        scale_input: charge with `(1 - decay) * current`.

    Returns:
        The new state and the spikes, 0 or 1, `[B, ...]`.

    Reference:
        Fang, Yu, Chen, Masquelier, Huang, Tian, "Incorporating Learnable Membrane Time Constant to
        Enhance Learning of Spiking Neural Networks", 2021, arXiv:2007.05785.
    """
    decayed = _lif_params(params, current)
    return lif(decayed, state, current, spike=spike, reset=reset, scale_input=scale_input)


def plif_model(
    *,
    decay: Parameter = 0.5,
    threshold: Parameter = 1.0,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = True,
    sequence: Sequence = lif_scan,
) -> Model:
    """Model of parametric LIF (PLIF) neurons, which learn one decay per layer or per neuron.

    Not a drop-in for `lif_model`: `scale_input` is True here, as published, and False there. A
    decay near 1 then takes the current away, with `(1 - decay) * x`, and neurons fall silent that a
    LIF of the same weights would not. To learn the decay of a `lif_model`, give
    `scale_input=False`.

        decay = 1 - sigmoid(w)                  w, and with it 1 / tau = sigmoid(w), is learned
        h[t] = decay * v[t-1] + g * x[t]        g = 1 - decay, or 1 without `scale_input`
        s[t] = [h[t] >= threshold]              derivative: the surrogate's
        v[t] = h[t] - s[t] * threshold          or another rule of `reset`

    Currents x `[T, B, ...]` in units of the membrane potential per timestep; spikes s `[T, B,
    ...]`, 0 or 1.

    Args:
        decay: fraction of the membrane potential kept per timestep at the start of training, in
            (0, 1); the parameter is `w = log((1 - decay) / decay)`. A number gives one decay per
            layer; an array that broadcasts against one timestep, such as `jnp.full(N, 0.5)`, one
            per neuron.
        threshold: membrane potential at which a neuron fires.
        spike: spike function and its surrogate derivative.
        reset: effect of a spike on the membrane potential.
        scale_input: charge with `(1 - decay) * x`; False as in `lif_model`.
        sequence: whole-sequence function of a LIF, `neurons.lif_scan` or the Pallas kernel
            `neurons.lif_kernel`; unused with a delayed reset.

    Raises:
        ValueError: `decay` is not inside (0, 1).

    Reference:
        Fang, Yu, Chen, Masquelier, Huang, Tian, "Incorporating Learnable Membrane Time Constant to
        Enhance Learning of Spiking Neural Networks", 2021, arXiv:2007.05785.
    """
    check_options("plif_model", spike=spike, reset=reset, threshold=threshold)
    options: dict[str, Any] = {"spike": spike, "reset": reset, "scale_input": scale_input}
    bound = bind_sequence(sequence, **options)
    # For the decay at the start; `with_learned` withdraws it where `w` is learned.
    inverse = inverse_or_refusal(
        lif_inverse, decay=smallest(decay), reset=reset, scale_input=scale_input
    )
    return Model(
        bind(plif, **options),
        PLIFParams(plif_weight(decay), threshold),
        lif_state,
        bound and LIFFunction(_lif_params, bound),
        # `w` sets the decay that bounds the number of steps.
        inverse if isinstance(inverse, Refusal) else LIFFunction(_lif_params, inverse, ("w",)),
        name="plif",
    )


def _lif_params(params: PLIFParams, current: Array) -> LIFParams:
    del current
    return LIFParams(plif_decay(params.w), params.threshold)
