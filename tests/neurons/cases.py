"""One row per neuron: its model, with one value per neuron of every parameter, and some inputs.

A new neuron is one more row of `NEURONS`; `nn.check_model` and the tables over all neurons take it
from there in the slow lane.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import neurons, surrogate
from snnjax.neurons import Model
from snnjax.neurons._coupled_scan import coupled_lif_scan

SPREAD = 0.1  # largest distance of a parameter from the value in its row


class Row(NamedTuple):
    model: Model
    growth: float = 1.0  # of a rounding error per step undone, at the parameters' worst values


class Case(NamedTuple):
    model: Model
    state: Any
    xs: jax.Array
    growth: float = 1.0

    @property
    def step(self):
        return self.model.step

    @property
    def params(self):
        return self.model.params

    @property
    def sequence(self):
        return self.model.sequence

    @property
    def inverse(self):
        """The inverse; None where the model refuses one."""
        return self.model.inverse if callable(self.model.inverse) else None


def _integrate_fire(arrays):
    return Row(neurons.integrate_fire_model(threshold=arrays(0.7)))


def _integrate_fire_late(arrays):
    model = neurons.integrate_fire_model(threshold=arrays(0.4), initial=0.2, latency=True)
    return Row(model)


def _lif(arrays):
    model = neurons.lif_model(decay=arrays(0.8), threshold=arrays(0.7))
    return Row(model, 1 / (0.8 - SPREAD))


def _lif_hard(arrays):
    return Row(
        neurons.lif_model(decay=arrays(0.8), threshold=arrays(0.7), reset=neurons.reset.zero),
    )


def _lif_delayed(arrays):
    reset = neurons.reset.delayed(neurons.reset.subtract)
    return Row(neurons.lif_model(decay=arrays(0.8), threshold=arrays(0.7), reset=reset))


def _spyx_lif(arrays):
    params = neurons.LIFParams(arrays(0.8), arrays(0.4))
    return Row(dataclasses.replace(neurons.compat.spyx_lif(0.8), params=params))


def _plif(arrays):
    w = -0.4
    smallest = float(1 - jax.nn.sigmoid(w + SPREAD))
    model = neurons.plif_model(decay=smallest)
    params = model.params._replace(w=arrays(w), threshold=arrays(0.4))
    return Row(dataclasses.replace(model, params=params), 1 / smallest)


def _alif(arrays, **options):
    model = neurons.alif_model(
        decay=arrays(0.9),
        threshold=arrays(0.5),
        adaptation_decay=arrays(0.8),
        strength=arrays(0.3),
        **options,
    )
    return Row(model, 1 / (0.8 - SPREAD))


def _alif_hard(arrays):
    return _alif(arrays, reset=neurons.reset.zero)


def _cuba_lif(arrays):
    model = neurons.cuba_lif_model(
        decay=arrays(0.8), synaptic_decay=arrays(0.5), threshold=arrays(0.7)
    )
    return Row(model, 1 / (0.5 - SPREAD))


def _li(arrays):
    return Row(neurons.li_model(decay=arrays(0.8)), 1 / (0.8 - SPREAD))


def _coupled_lif(arrays):
    model = neurons.coupled_lif_model(
        decay=arrays(0.4),
        threshold=arrays(0.5),
        alpha=arrays(0.6),
        beta=arrays(0.6),
        sequence=coupled_lif_scan,
    )
    decay, alpha = 0.4 + SPREAD, 0.6 - SPREAD
    back = np.array([[decay / alpha, 1 / alpha], [0, 0]])
    back[1] = (np.array([1, 0]) + decay * back[0]) / alpha
    return Row(model, float(np.max(np.abs(np.linalg.eigvals(back)))))


def _adex(arrays):
    # Without units, so that the currents of all rows make it fire.
    values = {"capacitance": 1.0, "conductance": 0.3, "leak": 0.0, "onset": 0.5, "slope": 0.4}
    values |= {"peak": 0.8, "reset": 0.0, "tau_w": 4.0, "a": 0.3, "b": 0.2}
    options = {name: arrays(value) for name, value in values.items()}
    return Row(neurons.adex_model(**options, dt=1.0, spike=surrogate.arctan()))


def _izhikevich(arrays):
    values = {"a": 0.3, "b": 0.2, "c": -70.3, "d": 0.3, "peak": -69.5}
    options = {name: arrays(value) for name, value in values.items()}
    return Row(neurons.izhikevich_model(**options, rest=-70.0, spike=surrogate.arctan()))


def _srm(kernel):
    def made(arrays):
        options = {"tau": 1.5, "refractory_tau": 1.0, "kernel": kernel}
        spike = surrogate.exponential(height=2.0, width=0.5)
        return Row(neurons.srm.srm_model(threshold=arrays(0.7), spike=spike, **options))

    return made


def _refractory(arrays):
    return Row(neurons.refractory_model(_lif(arrays).model, period=1))


def _with_feedback(row):
    def made(arrays):
        rng = np.random.default_rng(1)
        centers = arrays(0.0)
        weights = jnp.asarray(rng.normal(0, 0.5, (len(centers),) * 2), centers.dtype)
        return Row(neurons.recurrent_model(row(arrays).model, weights))

    return made


NEURONS = {
    "if": _integrate_fire,
    "if_late": _integrate_fire_late,
    "lif": _lif,
    "lif_hard": _lif_hard,
    "lif_delayed": _lif_delayed,
    "spyx_lif": _spyx_lif,
    "plif": _plif,
    "alif": _alif,
    "alif_hard": _alif_hard,
    "cuba_lif": _cuba_lif,
    "li": _li,
    "coupled_lif": _coupled_lif,
    "adex": _adex,
    "izhikevich": _izhikevich,
    "srm": _srm("recurrence"),
    "srm_truncated": _srm("truncated"),
    "refractory_lif": _refractory,
    "recurrent_lif": _with_feedback(_lif),
    "recurrent_alif": _with_feedback(_alif_hard),
}
# One neuron per mechanism, for the default lane; the slow one has every neuron.
CORE = (
    "lif", "lif_delayed", "plif", "alif", "cuba_lif", "coupled_lif", "adex", "izhikevich", "srm",
    "refractory_lif", "recurrent_lif",
)  # fmt: skip


def case(name, timesteps=7, *, batch=2, n=3, dtype=jnp.float64, seed=0) -> Case:
    """The neuron `name` with one value per neuron of every parameter and a state off rest."""
    rng = np.random.default_rng(seed)

    def arrays(center):
        return jnp.asarray(center + rng.uniform(-SPREAD, SPREAD, n), dtype)

    row = NEURONS[name](arrays)
    width = 2 * n if name == "coupled_lif" else n  # a parameter serves both of its groups
    state = row.model.initial_state((batch, width), dtype=dtype)
    state = jax.tree.map(lambda v: v + jnp.asarray(rng.uniform(0, 0.3, v.shape), dtype), state)
    xs = jnp.asarray(rng.normal(0.3, 0.6, (timesteps, batch, width)), dtype)
    return Case(row.model, state, xs, row.growth)
