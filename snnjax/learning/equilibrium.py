"""A spiking network as a layer whose gradient is that of the equilibrium of its firing rates.

    simulation    s[t] = body(inputs(x[t]) + feedback(s[t-1])),   t = 1..T
    rates         a = body_r(inputs(mean x) + feedback(a))        the map f, neurons as their rates

The simulation keeps the state of one timestep; the gradient that of the second equation, so its
bytes do not depend on T. Without feedback the equation is the network of the rates itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import memory, nn
from snnjax.learning import rates
from snnjax.learning.derivatives import implicit_rate, surrogate_vjp
from snnjax.learning.feedback import weight_norm
from snnjax.learning.rate_neuron import Counted, Free, Linked, Mapped, Membranes, RateNeuron
from snnjax.learning.solvers import Info
from snnjax.nn.contract import (
    Aux,
    Call,
    MemoryRequest,
    Placed,
    State,
    Statistics,
    gather,
    output_shape,
    place,
    prefix_names,
    repeat_state,
    replace,
)
from snnjax.ops.rounding import widen
from snnjax.typing import Array, PyTree, bind

__all__ = [
    "Equilibrium",
    "EquilibriumStatistics",
    "info_metrics",
    "solver_infos",
    "with_solver_infos",
]


class EquilibriumStatistics(NamedTuple):
    """Running statistics of the parts of `Equilibrium`.

    Attributes:
        inputs: statistics of the input layer.
        body: statistics of the body.
        feedback: statistics of the feedback layer.
        info: zeros, whose gradient is the solver's `Info`; `()` without feedback.
    """

    inputs: PyTree
    body: PyTree
    feedback: PyTree
    info: Info | tuple[()]


class Equilibrium(nnx.Module):
    """Neurons simulated over T timesteps, differentiated through the equilibrium of their rates.

        s[t] = body(inputs(x[t]) + feedback(s[t-1])),  t = 1..T,  s[0] = 0
        outputs = weighted mean of s[t]                                          [1, B, ...]

    Inputs are `[1, B, ...]`, a constant current whose input layer is computed once, or `[T, B,
    ...]`. All layers of one timestep see its spikes, only the feedback those of the timestep
    before. The outputs have one "timestep", the mean, so that any layer or readout follows.

    The gradient is that of the fixed point `a = f(a)`, where f is the network with `RateNeuron`
    layers in place of their simulation, and not that of backpropagation through time: `exact` is
    False. A memory strategy over time, such as `memory.store`, replaces it by the latter.

    In training, batch norm in the body uses running statistics during the simulation and batch
    statistics in the map, which also updates them; batch norm of the input layer uses those of the
    mean input. Dropout draws one mask for all timesteps and the map.

    Args:
        body: layer from currents to spikes, such as `Sequential(RateNeuron(m), Linear, ...,
            RateNeuron(m))`; its neurons are `RateNeuron` layers of one decay.
        timesteps: T.
        inputs: layer in front of the first neurons, such as `Sequential(Conv, BatchNorm)`; None
            feeds the inputs as currents.
        feedback: layer from the outputs of the body to its inputs, without bias; None for none.
        inner: `"map"` differentiates f with the values of its own inner layers (IDE), `"rates"`
            with the simulated rates of all layers, which are then variables of the equation: SPIDE,
            and without feedback DSR.
        solver: solver of the linear equation; None is `solvers.neumann()`.
        at_map: takes the Jacobian at `f(a)` instead of `a`; the released code of IDE does so for
            several layers.
        jacobian_norm: batch norm in the Jacobian: `"batch"` statistics, as the released code
            computes and as the map has, or `"running"` ones, which keep examples apart.
        event_norm: statistics of the input layer's batch norm in the simulation of `[T, B, ...]`:
            `"batch"` those of the map; `"published"` with the unbiased variance and epsilon 1e-8.

    Raises:
        ValueError: no or unequal neurons; a feedback weight that is no contraction; an unknown
            option; inputs with neither one timestep nor T (on a call).

    Reference:
        Xiao, Meng, Zhang, Wang, Lin, "Training Feedback Spiking Neural Networks by Implicit
        Differentiation on the Equilibrium State", 2021, arXiv:2109.14247.
    """

    def __init__(
        self,
        body: Any,
        *,
        timesteps: int,
        inputs: Any = None,
        feedback: Any = None,
        inner: str = "map",
        solver: Any = None,
        at_map: bool = False,
        jacobian_norm: str = "batch",
        event_norm: str = "batch",
    ):
        if timesteps < 1:
            raise ValueError(f"a simulation has at least one timestep, got {timesteps}")
        for name, value, allowed in (
            ("inner", inner, ("map", "rates")),
            ("jacobian_norm", jacobian_norm, ("batch", "running")),
            ("event_norm", event_norm, ("batch", "published")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        self.timesteps, self.inner, self.solver = timesteps, inner, solver
        self.at_map, self.jacobian_norm, self.event_norm = at_map, jacobian_norm, event_norm
        self.inputs = nn.Sequential() if inputs is None else inputs
        self.body, self.feedback, self.name = body, feedback, "equilibrium"
        self.decay = _common_decay(body)
        # Scan over time of backpropagation through time; None for the derivative of the rates.
        self.scan: Any = None
        _refuse_expansion(body, feedback)

    @property
    def exact(self) -> bool:
        """True if the derivative is that of backpropagation through time."""
        return self.scan is not None

    @property
    def whole_window(self) -> int:
        """T: the layer runs its own loop over all timesteps."""
        return self.timesteps

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Backpropagation through time under the strategy, in place of the derivative of the rates.

        Raises:
            ValueError: a reversal, which needs an inverse of the whole network.
        """
        scan = request.strategy.time
        if scan is None:
            return Placed(self, role="block")
        if isinstance(scan, memory.Reverse) and scan.inverse is None:
            raise ValueError(
                "a simulated network has no inverse over time: use time=store or "
                "time=recompute(every), or leave time out for the gradient of its rates"
            )
        # The neurons run one timestep per call, so their own scan has nothing to save.
        inner = MemoryRequest(memory.Strategy(time=memory.store), request.order)
        body = place(self.body, inner).layer
        return Placed(replace(self, body=body, scan=scan), False, frozenset({"time"}), "block")

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest, and statistics of all parts."""
        first = self.inputs.initial_state(shape)
        currents = output_shape(self.inputs, first, shape)
        body, feedback = self.body.initial_state(currents), State()
        if self.feedback is not None:
            outputs = output_shape(self.body, body, currents)
            feedback = self.feedback.initial_state(outputs)
            returned = output_shape(self.feedback, feedback, outputs)
            if returned != currents:
                raise ValueError(
                    f"the feedback gives currents {list(returned)} and the input layer "
                    f"{list(currents)}: both go to the same neurons, so give them one shape"
                )
        if jax.tree.leaves((first.neurons, feedback.neurons)):
            raise ValueError(
                "the input layer and the feedback are maps of one timestep without neurons: put "
                "neurons into the body"
            )
        neurons = repeat_state(body.neurons)
        spiking = getattr(self.solver, "timesteps", 0) > 0
        arrays = len(_nodes(neurons, Membranes)) if self.inner == "rates" else 1
        # Without feedback there is no equation to solve.
        info = () if self.feedback is None else Info.zeros(arrays * spiking)
        return State(
            (first.neurons, neurons, feedback.neurons),
            EquilibriumStatistics(first.statistics, body.statistics, feedback.statistics, info),
        )

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Mean outputs `[1, B, ...]` of the simulation of inputs `[1 or T, B, ...]`."""
        if len(inputs) not in (1, self.timesteps):
            raise ValueError(
                f"{len(inputs)} timesteps for a simulation of {self.timesteps}: give "
                f"[1, B, ...], a constant current, or [{self.timesteps}, B, ...]"
            )
        if not jnp.issubdtype(inputs.dtype, jnp.floating):
            # Counts of events have no cotangent, but the derivative of the layer asks for one.
            inputs = inputs.astype(jnp.float32)
        statistics, currents, taps = state.statistics, widen(inputs), {}
        layers, fed = (self.inputs, self.body, self.feedback), tuple(statistics)[:3]
        constant, neurons = len(inputs) == 1, state.neurons
        if constant:
            # Computed once, outside of the loop, and with its own derivative.
            own = State(neurons[0], statistics.inputs)
            currents, aux = self.inputs(inputs, own, call.child(0))
            currents, taps = widen(currents), prefix_names("inputs", aux.taps)
            statistics = statistics._replace(inputs=aux.statistics)
            layers, fed = (nn.Sequential(), *layers[1:]), ((), *fed[1:])
            neurons = ((), *neurons[1:])
        parts = Parts(layers, fed, neurons, call)
        outputs, simulated, after, own_taps = self._differentiate(parts, currents, statistics.info)
        if call.training and jax.tree.leaves(fed):
            # Statistics have no derivative, so the map may be evaluated once more outside of it.
            at = jax.lax.stop_gradient((parts, _mean(currents, decay=self.decay), outputs))
            mark = _linked(simulated) if self.inner == "rates" else _mapped
            updated = map_rates(*at, mark=mark)[2]
            updated = EquilibriumStatistics(*updated, statistics.info)
            statistics = updated._replace(inputs=statistics.inputs) if constant else updated
        neurons = (state.neurons[0], after, state.neurons[2])
        return outputs[None], Aux(neurons, statistics, taps | own_taps)

    def _differentiate(self, parts: Parts, currents: Array, info: Any) -> tuple[Any, ...]:
        """Mean outputs, rates of the layers, neurons and taps of the simulation."""
        options = {"timesteps": self.timesteps, "decay": self.decay, "norm": self.event_norm}
        if self.exact:
            outputs, kept = simulate(parts, currents, scan=self.scan, **options)
            return outputs, *kept
        run, mean = bind(simulate, scan=memory.store, **options), bind(_mean, decay=self.decay)
        if self.feedback is None:
            surrogate = bind(_surrogate, inner=self.inner)
            outputs, kept = surrogate_vjp(run, surrogate, summarize=mean)(parts, currents)
            return outputs, *kept
        frozen = self.jacobian_norm == "running"
        point = _fixed_point if self.inner == "map" else _joint_point
        function = implicit_rate(
            bind(point, frozen=False),
            run if self.inner == "map" else bind(_simulate_rates, run=run),
            solver=self.solver, summarize=mean, at_map=self.at_map,
            jacobian=bind(point, frozen=frozen),
        )  # fmt: skip
        result, kept = function(parts, currents, info=info)
        if self.inner == "map":
            return result, *kept
        # Only the last neurons and the layers behind them take part; earlier ones are cut off.
        outputs = _outputs(parts, _mean(currents, decay=self.decay), result)
        return outputs, result, *kept[1:]


class Parts(NamedTuple):
    """A network to simulate.

    Attributes:
        layers: input layer, body and feedback (or None).
        statistics: statistics of each of them.
        neurons: states of the neurons of each of them, at rest; only the body has some.
        call: options of the call.
    """

    layers: tuple[Any, Any, Any]
    statistics: tuple[PyTree, PyTree, PyTree]
    neurons: tuple[PyTree, PyTree, PyTree]
    call: Call


def simulate(
    parts: Parts, inputs: Array, *, timesteps: int, decay: float, norm: str, scan: Any
) -> tuple[Array, tuple[Any, PyTree, Any]]:
    """Simulates the network, which keeps one timestep.

    Args:
        parts: network.
        inputs: `[1, B, ...]`, a constant, or `[T, B, ...]`.
        timesteps: T.
        decay: weight of a timestep relative to the next one.
        norm: statistics of the input layer, see `Equilibrium`.
        scan: memory strategy.

    Returns:
        Mean outputs `[B, ...]`; and the rates of all layers of neurons in order, the neurons after
        the last timestep, and the taps.
    """
    layers, call = parts.layers, parts.call
    constant, states = len(inputs) == 1, _states(parts)
    if not constant and call.training:
        mean = _mean(inputs, decay=decay)
        fixed = _batch_statistics(layers[0], mean, states[0], call.child(0), norm)
        states = (states[0]._replace(statistics=fixed), *states[1:])
    # Statistics of single timesteps would add the noise of the spikes to the currents.
    layers = tuple(None if layer is None else freeze_norms(layer) for layer in layers)
    rest = functools.partial(_count_from_zero, inputs.dtype)
    neurons = jax.tree.map(rest, parts.neurons[1], is_leaf=_is(Membranes))
    shape = jax.eval_shape(_first_outputs, layers, states, call, inputs[:1]).shape[1:]
    zero = jnp.zeros(shape, inputs.dtype)
    params = (layers, states, call, inputs[0] if constant else None)
    # A scan needs inputs: the number of the timestep, where the current is constant.
    xs = jnp.arange(timesteps) if constant else inputs
    (neurons, _, total), taps = scan(bind(_step, decay=decay), params, (neurons, zero, zero), xs)
    weight = rates.total_weight(timesteps, decay=decay)
    simulated = tuple(node.total / weight for node in _nodes(neurons, Counted))
    neurons = jax.tree.map(lambda node: Membranes(node.neurons), neurons, is_leaf=_is(Counted))
    # Each call saw one timestep: `[T, 1, B, ...]` becomes `[T, B, ...]`.
    taps = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), taps)
    return total / weight, (simulated, neurons, taps)


def _states(parts: Parts) -> tuple[State, State, State]:
    first, body, last = map(State, parts.neurons, parts.statistics)
    return first, body, last


def _first_outputs(layers, states, call, inputs):
    currents, _ = layers[0](inputs, states[0], call.child(0))
    mapped = states[1]._replace(neurons=_mapped(states[1].neurons))
    return layers[1](currents, mapped, call.child(1))[0]


def _step(params, carry, x, *, decay):
    """One timestep: the layers in order, each on the newest spikes; feedback on the last ones."""
    layers, states, call, current = params
    neurons, spikes, total = carry
    first, last = Aux(), Aux()
    if current is None:
        current, first = layers[0](x[None], states[0], call.child(0))
    else:
        current = current[None]
    if layers[2] is not None:
        returned, last = layers[2](spikes[None], states[2], call.child(2))
        current = widen(current) + widen(returned)
    outputs, aux = layers[1](current, states[1]._replace(neurons=neurons), call.child(1))
    spikes = widen(outputs[0])
    parts = [("inputs", first), ("body", aux), ("feedback", last)]
    return (aux.state, spikes, decay * total + spikes), gather(parts).taps


def map_rates(
    parts: Parts,
    summary: Array,
    rate: Array | None,
    *,
    mark: Callable[[PyTree], PyTree],
    frozen: bool = False,
) -> tuple[Array, PyTree, tuple[PyTree, PyTree, PyTree]]:
    """Map between rates: the network of one timestep, neurons as their rates.

    Args:
        parts: network.
        summary: mean input, `[1, B, ...]`.
        rate: rates of the outputs, `[B, ...]`, for the feedback.
        mark: replaces the neurons at rest by their part in the map, see `learning.RateNeuron`.
        frozen: running statistics in place of those of the batch.

    Returns:
        Rates of the outputs `[B, ...]`, states of the neurons, updated statistics.
    """
    layers: Any = parts.layers
    states, call = _states(parts), parts.call
    if frozen:
        layers = tuple(None if layer is None else freeze_norms(layer) for layer in layers)
    current, first = layers[0](summary, states[0], call.child(0))
    last = Aux(statistics=states[2].statistics)
    if layers[2] is not None and rate is not None:
        returned, last = layers[2](rate[None], states[2], call.child(2))
        current = widen(current) + widen(returned)
    marked = states[1]._replace(neurons=mark(states[1].neurons))
    outputs, aux = layers[1](current, marked, call.child(1))
    updated = (first.statistics, aux.statistics, last.statistics)
    return widen(outputs[0]), aux.state, updated


def _fixed_point(parts, summary, rate, *, frozen):
    return map_rates(parts, summary, rate, mark=_mapped, frozen=frozen)[0]


def _joint_point(parts, summary, simulated, *, frozen):
    rate, mark = _outputs(parts, summary, simulated), _free(simulated)
    states = map_rates(parts, summary, rate, mark=mark, frozen=frozen)[1]
    return tuple(node.rate for node in _nodes(states, Free))


def _simulate_rates(parts, inputs, *, run):
    _, kept = run(parts, inputs)
    return kept[0], kept


def _outputs(parts, summary, simulated):
    """Outputs of the body as a function of the rates of its neurons."""
    return map_rates(parts, summary, None, mark=_free(simulated))[0]


def _surrogate(parts, summary, kept, *, inner):
    mark = _linked(kept[0]) if inner == "rates" else _mapped
    return map_rates(parts, summary, None, mark=mark)[0]


def _mean(inputs, *, decay):
    return rates.mean(inputs, decay=decay)[None]


def _mapped(neurons):
    return jax.tree.map(lambda _: Mapped(), neurons, is_leaf=_is(Membranes))


def _linked(simulated):
    return functools.partial(_with_rates, Linked, simulated)


def _free(simulated):
    return functools.partial(_with_rates, Free, simulated)


def _with_rates(kind, simulated, neurons):
    own = iter(simulated)
    return jax.tree.map(lambda _: kind(next(own)), neurons, is_leaf=_is(Membranes))


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda node: isinstance(node, kind)


def _nodes(tree: PyTree, kind: type) -> list[Any]:
    leaves = jax.tree.leaves(tree, is_leaf=_is(kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


def _count_from_zero(dtype, node):
    neurons = jax.tree.map(lambda leaf: leaf.astype(dtype), node.neurons)
    # The first array of a neuron's state has the shape of its outputs.
    return Counted(neurons, jnp.zeros_like(jax.tree.leaves(neurons)[0]))


def freeze_norms(layer: Any) -> Any:
    """A copy of a layer whose batch norms use the statistics they are given, in training too."""
    return _with_norms(layer, over="frozen")


def _with_norms(layer: Any, **attributes: Any) -> Any:
    if not any(isinstance(m, nn.BatchNorm) for _, m in nnx.iter_modules(layer)):
        return layer
    copied = nnx.merge(*nnx.split(layer))
    for _, module in nnx.iter_modules(copied):
        if isinstance(module, nn.BatchNorm):
            vars(module).update(attributes)
    return copied


def _batch_statistics(layer, mean, state, call, norm):
    """Statistics of the batch of mean inputs, in place of the running ones."""
    # Without momentum the running statistics are those of the batch.
    single = _with_norms(layer, momentum=0.0)
    outputs, aux = single(mean, state, call)
    if norm == "batch":
        return aux.statistics
    count = outputs.size // outputs.shape[-1]
    epsilon = max(m.epsilon for _, m in nnx.iter_modules(layer) if isinstance(m, nn.BatchNorm))

    def published(node):
        # The frozen norm adds its own epsilon again.
        return node._replace(var=node.var * (count / (count - 1)) + (1e-8 - epsilon))

    return jax.tree.map(published, aux.statistics, is_leaf=_is(Statistics))


def solver_infos(statistics: PyTree) -> list[Info]:
    """Zeros of the equilibrium layers of a network, whose gradients are their solvers' `Info`.

    Args:
        statistics: statistics of a network or layer.
    """
    return _nodes(statistics, Info)


def with_solver_infos(statistics: PyTree, infos: list[Info]) -> PyTree:
    """The statistics with other arrays for `solver_infos`, to be differentiated by.

    Args:
        statistics: statistics of a network or layer.
        infos: one `Info` per equilibrium layer, in order.
    """
    own = iter(infos)
    replaced = lambda node: next(own) if isinstance(node, Info) else node  # noqa: E731
    return jax.tree.map(replaced, statistics, is_leaf=_is(Info))


def info_metrics(infos: list[Info]) -> dict[str, Array]:
    """Numbers of a training record: the largest residual, and rates of the backward neurons.

    Args:
        infos: gradients with respect to `solver_infos`.
    """
    if not infos:
        return {}
    fired = [rate for info in infos for rate in info.rates]
    named = {f"backward_rate{i}": rate for i, rate in enumerate(fired)}
    return {"solver_residual": jnp.stack([info.residual for info in infos]).max(), **named}


def _rate_neurons(layer: Any) -> list[RateNeuron]:
    return [m for _, m in nnx.iter_modules(layer) if isinstance(m, RateNeuron)]


def _common_decay(body: Any) -> float:
    decays = {module.decay for module in _rate_neurons(body)}
    if len(decays) != 1:
        raise ValueError(
            "the rates of a network are means with one decay, and its neurons have "
            f"{sorted(decays) or 'none'}: build the body of learning.RateNeuron layers of one model"
        )
    return decays.pop()


def _refuse_expansion(body: Any, feedback: Any) -> None:
    """Refuses a feedback weight of one layer of neurons that is no contraction."""
    neurons, synapses = _without_dropout(body), _without_dropout(feedback)
    if len(neurons) != 1 or not isinstance(neurons[0], RateNeuron) or len(synapses) != 1:
        return
    # An object that is no pytree cannot be an argument, and has no kernel known here.
    if not isinstance(synapses[0], nnx.Module):
        return
    norm, slope = _expansion(neurons[0], synapses[0])
    if norm is None:
        return
    try:
        norm, slope = float(norm), float(slope)
    except jax.errors.ConcretizationTypeError:
        # A network made inside `jax.jit` or `jax.eval_shape`: the weight has no values yet.
        return
    # Rounding of a weight at its bound is no expansion.
    if norm * slope >= 1 + 1e-5:
        raise ValueError(
            f"the feedback weight has norm {norm:.3g} and the rate of the neurons slope "
            f"{slope:.3g}: {norm * slope:.3g} is no contraction, so the rates need not settle and "
            "the equation of the gradient has no bounded solution. Bound the weight by "
            f"learning.Spectral(feedback, bound={0.5 / slope:.3g})"
        )


@jax.jit
def _expansion(neuron: RateNeuron, synapse: Any) -> tuple[Array | None, Array]:
    """Norm of a feedback weight, and the largest slope of the rate of the neurons behind it."""
    slopes = jax.vmap(jax.grad(lambda z: neuron.rate(neuron.neuron.params(), z, None)))
    return weight_norm(synapse), jnp.abs(slopes(jnp.geomspace(1e-3, 1e3, 61))).max()


def _without_dropout(layer: Any) -> list[Any]:
    if isinstance(layer, nn.Sequential):
        return [part for inner in layer.layers for part in _without_dropout(inner)]
    return [] if layer is None or isinstance(layer, nn.Dropout) else [layer]
