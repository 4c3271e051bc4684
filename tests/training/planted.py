"""Networks with a memory strategy that is broken on purpose, one fault each."""

import dataclasses
import functools

import jax

from snnjax import memory, neurons, nn
from snnjax.neurons.lif import lif_inverse
from tests.training import micro


def experiment(network):
    """The micro experiment with another network, on few examples."""
    return dataclasses.replace(micro.config(), network=network, batch=16)


def wrong_inverse(experiment, rngs):
    """Reverses neurons that reset by subtraction as if they did not reset."""
    wrong = memory.reverse(lif_inverse(decay=0.5, reset=neurons.reset.none))
    return _network(rngs, nn.LIF(decay=0.5, scan=wrong))


def statistics_twice(experiment, rngs):
    """Updates normalisation statistics in the forward pass and once more."""

    def scan(step, params, state, xs):
        blocks, neurons, _, call = xs
        after, aux = memory.store(step, params, state, xs)
        _, again = memory.store(step, params, state, (blocks, neurons, aux.statistics, call))
        return after, aux._replace(statistics=again.statistics)

    return stacked(rngs, scan)


def dropped_key(experiment, rngs):
    """Replays blocks with the keys of other blocks."""

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def run(step, params, state, rest, call):
        return memory.store(step, params, state, (*rest, call))

    def forward(step, *arguments):
        return run(step, *arguments), arguments

    def backward(step, kept, cotangents):
        *arguments, call = kept
        others = dataclasses.replace(call, key=call.key[::-1])

        def replay(params, state, rest):
            return memory.store(step, params, state, (*rest, others))

        return (*jax.vjp(replay, *arguments)[1](cotangents), None)

    run.defvjp(forward, backward)

    def scan(step, params, state, xs):
        *rest, call = xs
        if call.key is None:  # evaluation
            return memory.store(step, params, state, xs)
        return run(step, params, state, tuple(rest), call)

    return stacked(rngs, scan)


def _network(rngs, neuron):
    body = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 8, rngs=rngs), neuron, nn.Linear(8, 10, rngs=rngs)
    )
    return nn.Network(body, (8, 8, 1))


def stacked(rngs, scan):
    """Three blocks with a norm and dropout, scanned by `scan`."""

    def block(rngs):
        linear = nn.Linear(8, 8, rngs=rngs)
        return nn.Sequential(linear, nn.BatchNorm(8), nn.Dropout(0.3), nn.LIF())

    stack = nn.Stacked(block, 3, scan=scan, rngs=rngs)
    body = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 8, rngs=rngs), nn.LIF(), stack, nn.Linear(8, 10, rngs=rngs)
    )
    return nn.Network(body, (8, 8, 1))
