"""The spike response model (SRM): filtered inputs, and a response to the neuron's own spikes.

    filter   p[t] = sum over j >= 1 of eps[j] x[t-j]          eps[j] = (j / tau) e^(1 - j / tau)
    fire     s[t] = [u[t] >= theta],   u = p + r              derivative: the surrogate's
    recover  r[t] = -c theta sum over j >= 1 of nu[j] s[t-j]

    "exponential"   nu[j] = e^(-(j - 1) / tau_r)              of the angular-velocity network
    "alpha"         nu[j] = (j / tau_r) e^(1 - j / tau_r)     of SLAYER

The membrane is never reset; `r` takes part in the surrogate's argument and passes no gradient.
`eps[0] = nu[0] = 0`, so every neuron delays by at least one step. A filter is linear and commutes
with a synapse without bias: `W (eps * s) = eps * (W s)`, so the filter of the inputs stands behind
the synapse here.

A response runs in one of two forms. "truncated" keeps the last inputs and cuts `eps` at the first
`j > tau` below 0.01, `c theta nu` likewise, as the released codes do. "recurrence" is exact, and
keeps two numbers per neuron:

    b <- a (b + q + x),   q <- a (q + x),   p = (e / tau) b,   a = e^(-1 / tau)

References: Shrestha and Orchard, "SLAYER: Spike Layer Error Reassignment in Time", 2018,
arXiv:1810.08646; Gehrig, Shrestha, Mouritzen, Scaramuzza, "Event-Based Angular Velocity Regression
with Spiking Networks", ICRA 2020, arXiv:2003.02790.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.neurons._inverses import largest
from snnjax.neurons.model import Model, Parameter, check_options
from snnjax.ops.arguments import check_choice, check_counts, check_numbers
from snnjax.surrogate import Surrogate, exponential
from snnjax.typing import Array, bind

__all__ = [
    "PSPParams",
    "PSPState",
    "Response",
    "SRMParams",
    "SRMState",
    "psp",
    "psp_model",
    "srm",
    "srm_model",
]

# Smallest value of a kernel that the released codes keep.
_CUT = 0.01
_SHAPES = ("alpha", "exponential")
_KERNELS = ("truncated", "recurrence")


@dataclasses.dataclass(frozen=True)
class Response:
    """A causal linear filter with a delay of one step.

        "alpha"         k[j] = (j / tau) e^(1 - j / tau)
        "exponential"   k[j] = e^(-(j - 1) / tau),  k[0] = 0

    Attributes:
        shape: "alpha" or "exponential".
        tau: time constant, in timesteps.
        length: number of values of the kernel, with `k[0]`; None for the exact recurrence.
    """

    shape: str
    tau: float
    length: int | None = None

    def kernel(self, *, length: int | None = None) -> np.ndarray:
        """The kernel, float64 `[length]`."""
        number = length or self.length
        if number is None:
            raise ValueError("an exact recurrence has a kernel without end: give a length")
        j = np.arange(number)
        if self.shape == "alpha":
            return j / self.tau * np.exp(1 - j / self.tau)
        return np.where(j > 0, np.exp(-(j - 1) / self.tau), 0)

    def cut(self, *, scale: float = 1.0, longest: int | None = None) -> Response:
        """The truncated filter: ends at the first `j > tau` with `scale * k[j] < 0.01`.

        Args:
            scale: factor of the kernel, such as the threshold.
            longest: largest length, such as the number of timesteps; None is no limit.
        """
        # Beyond tau both shapes fall monotonically, below e^-30 within 40 tau.
        number = math.ceil(self.tau * (40 + math.log1p(scale))) + 2
        small = scale * self.kernel(length=number) < _CUT
        length = int(np.flatnonzero((np.arange(number) > self.tau) & small)[0])
        return dataclasses.replace(self, length=min(length, longest or length))

    def rest(self, shape: tuple[int, ...], dtype: Any) -> tuple[Array, ...]:
        """State without past inputs."""
        if self.length is not None:
            return (jnp.zeros((self.length - 1, *shape), dtype),)
        return (jnp.zeros(shape, dtype),) * (2 if self.shape == "alpha" else 1)

    def read(self, state: tuple[Array, ...]) -> Array:
        """Response to the inputs so far, `[B, ...]`."""
        if self.length is not None:
            weights = jnp.asarray(self.kernel()[1:], state[0].dtype)
            return jnp.tensordot(weights, state[0], 1)
        return state[0] if self.shape == "exponential" else math.e / self.tau * state[1]

    def push(self, state: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
        """State after an input `[B, ...]`."""
        if self.length is not None:
            # The newest input is first, as `k[1]` is.
            return (jnp.concatenate([x[None], state[0][:-1]]),)
        keep = math.exp(-1 / self.tau)
        if self.shape == "exponential":
            return (keep * state[0] + x,)
        q, b = state
        return keep * (q + x), keep * (b + q + x)


def _response(shape: str, tau: float, kernel: str, **cut: Any) -> Response:
    exact = Response(shape, float(tau))
    return exact if kernel == "recurrence" else exact.cut(**cut)


class PSPParams(NamedTuple):
    """`psp` has no parameters: its kernel is an option."""


class PSPState(NamedTuple):
    """State of `psp`: the last output `v`, `[B, ...]`, and that of the filter."""

    v: Array
    response: tuple[Array, ...]


def _psp_state(shape: tuple[int, ...], *, response: Response, dtype: Any = jnp.float32) -> PSPState:
    return PSPState(jnp.zeros(shape, dtype), response.rest(shape, dtype))


def psp(
    params: PSPParams, state: PSPState, x: Array, *, response: Response
) -> tuple[PSPState, Array]:
    """One timestep of a postsynaptic potential, `p[t] = sum over j >= 1 of eps[j] x[t-j]`.

    Args:
        params: none.
        state: last output and past inputs.
        x: inputs, `[B, ...]`.
        response: the filter.

    Returns:
        The new state and `p[t]`, `[B, ...]`, in the unit of the inputs.
    """
    del params
    v = response.read(state.response)
    return PSPState(v, response.push(state.response, x)), v


def psp_model(*, tau: float = 10.0, kernel: str = "truncated", longest: int | None = None) -> Model:
    """Model of a postsynaptic potential, a filter without spikes.

        p[t] = sum over j >= 1 of eps[j] x[t-j],    eps[j] = (j / tau) e^(1 - j / tau)

    Inputs x and outputs p `[T, B, ...]` have one unit. The sum of the truncated kernel is 5.304,
    10.771 and 21.631 for tau = 2, 4 and 8.

    Args:
        tau: time to the peak of the kernel, in timesteps.
        kernel: "truncated" below 0.01, as in SLAYER's code; or "recurrence", exact.
        longest: largest length of a truncated kernel, in timesteps; None is no limit.

    Raises:
        ValueError: an unknown kernel, or a tau that is not positive.

    Reference:
        Shrestha and Orchard, "SLAYER: Spike Layer Error Reassignment in Time", 2018,
        arXiv:1810.08646.
    """
    _check("psp_model", kernel, longest, tau=tau)
    response = _response("alpha", tau, kernel, longest=longest)
    return Model(
        bind(psp, response=response),
        PSPParams(),
        bind(_psp_state, response=response),
        spiking=False,
        name="psp",
    )


def _check(owner: str, kernel: str, longest: int | None, **times: float) -> None:
    check_choice(owner, choices=_KERNELS, kernel=kernel)
    check_numbers(owner, above=0, **times)
    if longest is not None:
        check_counts(owner, least=2, longest=longest)


class SRMParams(NamedTuple):
    """Parameters of `srm`: `threshold`, a scalar or an array that broadcasts to one timestep."""

    threshold: Parameter


class SRMState(NamedTuple):
    """State of `srm`.

    Attributes:
        v: membrane potential u of the last step, `[B, ...]`.
        response: past inputs, as the filter keeps them.
        refractory: past spikes, as their response keeps them.
    """

    v: Array
    response: tuple[Array, ...]
    refractory: tuple[Array, ...]


def _srm_state(
    shape: tuple[int, ...], *, response: Response, refractory: Response, dtype: Any = jnp.float32
) -> SRMState:
    rest = [part.rest(shape, dtype) for part in (response, refractory)]
    return SRMState(jnp.zeros(shape, dtype), *rest)


def srm(
    params: SRMParams,
    state: SRMState,
    current: Array,
    *,
    response: Response,
    refractory: Response,
    refractory_scale: float,
    spike: Surrogate,
) -> tuple[SRMState, Array]:
    """One timestep of spike response neurons.

        u[t] = p[t] - c theta sum over j >= 1 of nu[j] s[t-j],    s[t] = [u[t] >= theta]

    Args:
        params: threshold theta.
        state: membrane potential, past inputs and spikes.
        current: `[B, ...]`; its filtered value is in units of the membrane potential.
        response: filter of the inputs.
        refractory: filter of the spikes.
        refractory_scale: c.
        spike: spike function and its surrogate derivative.

    Returns:
        The new state and the spikes, 0 or 1, `[B, ...]`.

    Reference:
        Shrestha and Orchard, "SLAYER: Spike Layer Error Reassignment in Time", 2018,
        arXiv:1810.08646.
    """
    recovery = refractory_scale * params.threshold * refractory.read(state.refractory)
    u = response.read(state.response) - jax.lax.stop_gradient(recovery)
    spikes = spike(u - params.threshold)
    filtered = response.push(state.response, current)
    # The rule of SLAYER: errors reach earlier layers through `p` alone.
    recovering = refractory.push(state.refractory, jax.lax.stop_gradient(spikes))
    return SRMState(u, filtered, recovering), spikes


def srm_model(
    *,
    threshold: Parameter = 10.0,
    tau: float = 10.0,
    refractory_tau: float = 1.0,
    refractory: str = "alpha",
    refractory_scale: float = 2.0,
    kernel: str = "truncated",
    longest: int | None = None,
    spike: Surrogate | None = None,
) -> Model:
    """Model of spike response (SRM) neurons, trained by SLAYER's rule.

        p[t] = sum over j >= 1 of eps[j] x[t-j],              eps[j] = (j / tau) e^(1 - j / tau)
        u[t] = p[t] - c theta sum over j >= 1 of nu[j] s[t-j]
        s[t] = [u[t] >= theta]                                derivative: the surrogate's

    Currents x `[T, B, ...]`, spikes s `[T, B, ...]`, 0 or 1. The defaults are those of
    slayerPytorch. No gradient passes through the refractory response.

    Args:
        threshold: theta, membrane potential at which a neuron fires.
        tau: time to the peak of the response to an input, in timesteps.
        refractory_tau: time constant of the response to a spike, in timesteps.
        refractory: shape of that response: "alpha", `(j / tau_r) e^(1 - j / tau_r)`, of SLAYER; or
            "exponential", `e^(-(j - 1) / tau_r)`, of the angular-velocity network.
        refractory_scale: c, its size in thresholds.
        kernel: "truncated" below 0.01, as in the released codes; or "recurrence", exact.
        longest: largest length of truncated kernels, in timesteps; None is no limit.
        spike: spike function and its surrogate derivative; None is SLAYER's at this threshold,
            `surrogate.exponential(height=1 / theta, width=theta)`. With its options rho and tau_rho
            SLAYER has `height=rho / (tau_rho theta), width=tau_rho theta`; the code of the
            angular-velocity network has `height=rho / theta`.

    Raises:
        ValueError: an unknown shape or kernel; a number that is not positive; a threshold of
            several values without `spike`.

    Reference:
        Shrestha and Orchard, "SLAYER: Spike Layer Error Reassignment in Time", 2018,
        arXiv:1810.08646; Gehrig, Shrestha, Mouritzen, Scaramuzza, "Event-Based Angular Velocity
        Regression with Spiking Networks", ICRA 2020, arXiv:2003.02790.
    """
    check_options("srm_model", spike=spike, threshold=threshold)
    _check("srm_model", kernel, longest, tau=tau, refractory_tau=refractory_tau)
    check_choice("srm_model", choices=_SHAPES, refractory=refractory)
    check_numbers("srm_model", least=0, refractory_scale=refractory_scale)
    highest = largest(threshold)
    if highest is None or (spike is None and jnp.ndim(threshold)):
        raise ValueError(
            "srm_model takes its kernels and SLAYER's surrogate from the threshold: give a known "
            "number, or an array and spike=surrogate.exponential(height=, width=)"
        )
    scale = refractory_scale * highest
    filters = {
        "response": _response("alpha", tau, kernel, longest=longest),
        "refractory": _response(refractory, refractory_tau, kernel, longest=longest, scale=scale),
    }
    spike = exponential(height=1 / highest, width=highest) if spike is None else spike
    step = bind(srm, spike=spike, refractory_scale=float(refractory_scale), **filters)
    return Model(step, SRMParams(threshold), bind(_srm_state, **filters), name="srm")
