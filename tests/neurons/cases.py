"""One row per neuron: its step, parameters, initial state and some inputs it fires on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import neurons
from snnjax.typing import bind


class Case(NamedTuple):
    step: Any
    params: Any
    state: Any
    xs: jax.Array
    whole: Any = (
        None  # the whole-sequence function with a hand-written derivative, where one exists
    )


def _lif(arrays):
    return neurons.lif, neurons.LIFParams(arrays(0.8), arrays(0.7)), neurons.lif_scan


def _lif_delayed(arrays):
    step = bind(neurons.lif, reset=neurons.delayed(neurons.subtract))
    return step, neurons.LIFParams(arrays(0.8), arrays(0.7)), None


def _integrate_fire(arrays):
    return neurons.integrate_fire, neurons.IFParams(arrays(0.7)), neurons.integrate_fire_scan


def _plif(arrays):
    return neurons.plif, neurons.PLIFParams(arrays(-0.4), arrays(0.4)), neurons.plif_scan


def _alif(arrays):
    params = neurons.ALIFParams(arrays(0.9), arrays(0.5), arrays(0.8), arrays(0.3))
    return bind(neurons.alif, reset=neurons.zero), params, None


def _cuba_lif(arrays):
    params = neurons.CubaLIFParams(arrays(0.8), arrays(0.5), arrays(0.7))
    return neurons.cuba_lif, params, None


def _li(arrays):
    return neurons.li, neurons.LIParams(arrays(0.8)), None


NEURONS = {
    "if": _integrate_fire,
    "lif": _lif,
    "lif_delayed": _lif_delayed,
    "plif": _plif,
    "alif": _alif,
    "cuba_lif": _cuba_lif,
    "li": _li,
    "recurrent_lif": _lif,
    "recurrent_alif": _alif,
}
STATES = {
    "alif": neurons.alif_state,
    "recurrent_alif": neurons.alif_state,
    "cuba_lif": neurons.cuba_lif_state,
}


def case(name, timesteps=7, *, batch=2, n=3, dtype=jnp.float64, seed=0) -> Case:
    """The neuron `name` with one value per neuron of every parameter and a state off rest."""
    rng = np.random.default_rng(seed)

    def arrays(center):
        return jnp.asarray(center + rng.uniform(-0.1, 0.1, n), dtype)

    step, params, whole = NEURONS[name](arrays)
    state = STATES.get(name, neurons.lif_state)((batch, n), dtype=dtype)
    state = jax.tree.map(lambda v: v + jnp.asarray(rng.uniform(0, 0.3, v.shape), dtype), state)
    xs = jnp.asarray(rng.normal(0.3, 0.6, (timesteps, batch, n)), dtype)
    if name.startswith("recurrent"):
        weights = jnp.asarray(rng.normal(0, 0.5, (n, n)), dtype)
        step = neurons.recurrent(step)
        params = neurons.RecurrentParams(params, weights)
        state = neurons.RecurrentState(state, jnp.zeros((batch, n), dtype))
        whole = None
    return Case(step, params, state, xs, whole)
