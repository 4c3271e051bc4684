"""One row per neuron: its step, parameters, initial state and some inputs it fires on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import neurons
from snnjax.typing import bind


class Model(NamedTuple):
    step: Any
    params: Any
    initial: Any = neurons.lif_state
    whole: Any = (
        None  # the whole-sequence function with a hand-written derivative, where one exists
    )
    inverse: Any = None
    growth: float = 1.0  # of a rounding error per step undone, from the parameters' worst values


class Case(NamedTuple):
    step: Any
    params: Any
    state: Any
    xs: jax.Array
    whole: Any = None
    inverse: Any = None
    growth: float = 1.0


SPREAD = 0.1  # parameters lie so far at most around the values given here


def _lif(arrays):
    inverse = neurons.lif_inverse(decay=0.7)
    params = neurons.LIFParams(arrays(0.8), arrays(0.7))
    return Model(
        neurons.lif, params, whole=neurons.lif_scan, inverse=inverse, growth=1 / (0.8 - SPREAD)
    )


def _lif_hard(arrays):
    options = {"reset": neurons.zero}
    params = neurons.LIFParams(arrays(0.8), arrays(0.7))
    return Model(bind(neurons.lif, **options), params, whole=bind(neurons.lif_scan, **options))


def _lif_delayed(arrays):
    step = bind(neurons.lif, reset=neurons.delayed(neurons.subtract))
    return Model(step, neurons.LIFParams(arrays(0.8), arrays(0.7)))


def _spyx_lif(arrays):
    return Model(neurons.spyx_lif(0.8).step, neurons.LIFParams(arrays(0.8), arrays(0.4)))


def _integrate_fire(arrays):
    return Model(
        neurons.integrate_fire,
        neurons.IFParams(arrays(0.7)),
        whole=neurons.integrate_fire_scan,
        inverse=neurons.integrate_fire_inverse(),
    )


def _plif(arrays):
    smallest = float(neurons.plif_decay(jnp.asarray(-0.4 + SPREAD)))
    return Model(
        neurons.plif,
        neurons.PLIFParams(arrays(-0.4), arrays(0.4)),
        whole=neurons.plif_scan,
        inverse=neurons.plif_inverse(decay=smallest),
        growth=1 / smallest,
    )


def _alif(arrays):
    params = neurons.ALIFParams(arrays(0.9), arrays(0.5), arrays(0.8), arrays(0.3))
    inverse = neurons.alif_inverse(decay=0.8, adaptation_decay=0.7)
    return Model(
        neurons.alif, params, neurons.alif_state, inverse=inverse, growth=1 / (0.8 - SPREAD)
    )


def _alif_hard(arrays):
    return _alif(arrays)._replace(step=bind(neurons.alif, reset=neurons.zero), inverse=None)


def _cuba_lif(arrays):
    return Model(
        neurons.cuba_lif,
        neurons.CubaLIFParams(arrays(0.8), arrays(0.5), arrays(0.7)),
        neurons.cuba_lif_state,
        inverse=neurons.cuba_lif_inverse(decay=0.7, synaptic_decay=0.4),
        growth=1 / (0.5 - SPREAD),
    )


def _li(arrays):
    inverse = neurons.li_inverse(decay=0.7)
    return Model(
        neurons.li, neurons.LIParams(arrays(0.8)), inverse=inverse, growth=1 / (0.8 - SPREAD)
    )


def _coupled(arrays):
    decay, alpha = 0.4 + SPREAD, 0.6 - SPREAD
    back = np.array([[decay / alpha, 1 / alpha], [0, 0]])
    back[1] = (np.array([1, 0]) + decay * back[0]) / alpha
    return Model(
        neurons.coupled_lif,
        neurons.CoupledLIFParams(arrays(0.4), arrays(0.5), arrays(0.6), arrays(0.6)),
        neurons.coupled_lif_state,
        whole=neurons.coupled_lif_scan,
        inverse=neurons.coupled_lif_inverse(decay=decay, alpha=alpha),
        growth=float(np.max(np.abs(np.linalg.eigvals(back)))),
    )


NEURONS = {
    "if": _integrate_fire,
    "lif": _lif,
    "lif_hard": _lif_hard,
    "lif_delayed": _lif_delayed,
    "spyx_lif": _spyx_lif,
    "plif": _plif,
    "alif": _alif,
    "alif_hard": _alif_hard,
    "cuba_lif": _cuba_lif,
    "li": _li,
    "coupled_lif": _coupled,
    "recurrent_lif": _lif,
    "recurrent_alif": _alif_hard,
}


def case(name, timesteps=7, *, batch=2, n=3, dtype=jnp.float64, seed=0) -> Case:
    """The neuron `name` with one value per neuron of every parameter and a state off rest."""
    rng = np.random.default_rng(seed)

    def arrays(center):
        return jnp.asarray(center + rng.uniform(-SPREAD, SPREAD, n), dtype)

    model = NEURONS[name](arrays)
    width = 2 * n if name == "coupled_lif" else n  # a parameter serves both of its groups
    state = model.initial((batch, width), dtype=dtype)
    state = jax.tree.map(lambda v: v + jnp.asarray(rng.uniform(0, 0.3, v.shape), dtype), state)
    xs = jnp.asarray(rng.normal(0.3, 0.6, (timesteps, batch, width)), dtype)
    made = Case(model.step, model.params, state, xs, model.whole, model.inverse, model.growth)
    if not name.startswith("recurrent"):
        return made
    weights = jnp.asarray(rng.normal(0, 0.5, (n, n)), dtype)
    return Case(
        neurons.recurrent(model.step),
        neurons.RecurrentParams(model.params, weights),
        neurons.RecurrentState(state, jnp.zeros((batch, n), dtype)),
        xs,
    )
