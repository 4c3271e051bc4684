"""A neuron model as a layer: parameters, dynamics and the scan over time.

    outputs, state after = scan(step, params, state before, currents)

With `scan=None` the layer runs the model's whole-sequence function, where it has one, and
`memory.store` of its step otherwise. Any other scan runs the step as it is; `memory.reversal()`
takes the inverse of the model. Values are the same under each.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from snnjax import memory
from snnjax.neurons import Model
from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, replace
from snnjax.nn.mixed_precision import mixed
from snnjax.nn.taps import reconstruction, tapped
from snnjax.ops.rounding import is_narrow
from snnjax.typing import Array, Scan, Step, bind

__all__ = ["Constant", "Neuron", "membranes", "run"]


class Constant(nnx.Variable):
    """An array that a module holds but does not learn, such as one decay per neuron."""


class Neuron(nnx.Module):
    """A layer of neurons.

        layer = nn.Neuron(neurons.lif_model(decay=0.9), learn=("decay",))

    Args:
        model: of the neurons, such as `neurons.lif_model()` or `neurons.Model(step, params,
            initial_state)` of a step of your own; its params are numbers and arrays.
        scan: the memory strategy over time; None for the model's whole-sequence function, or
            `memory.store` without one.
        learn: names of the parameters to learn; the others stay constant.

    Attributes:
        model: the model, with None in place of parameters that are arrays or learned.

    Raises:
        TypeError: a parameter is neither a number nor an array.
        ValueError: `learn` names an unknown parameter; the scan reverses and the model has no
            inverse, or one that rests on a learned parameter.
    """

    def __init__(self, model: Model, *, scan: Scan | None = None, learn: tuple[str, ...] = ()):
        values = model.params._asdict()
        unknown = sorted(set(learn) - set(values))
        if unknown:
            raise ValueError(f"cannot learn {unknown}: the parameters here are {sorted(values)}")
        for name, value in values.items():
            if isinstance(value, tuple | list | dict) or value is None:
                raise TypeError(
                    f"the parameter {name} is a {type(value).__name__}, and a layer takes numbers "
                    "and arrays: give the model one NamedTuple of them; feedback is nn.Recurrent"
                )
        numbers = {k for k, v in values.items() if k not in learn and isinstance(v, float | int)}
        self.learned = nnx.Dict(
            {k: nnx.Param(jnp.asarray(values[k], jnp.float32)) for k in sorted(learn)}
        )
        self.constants = nnx.Dict(
            {k: Constant(jnp.asarray(v)) for k, v in values.items() if k not in {*learn, *numbers}}
        )
        # Static attributes of a module are compared with ==, so arrays must not be among them.
        params = model.params._replace(**{k: None for k in values if k not in numbers})
        self.model = dataclasses.replace(model.with_learned(tuple(learn)), params=params)
        self.scan = self.resolve(scan)

    @property
    def name(self) -> str:
        """Name of the layer in taps."""
        return self.model.name

    @property
    def spiking(self) -> bool:
        """True if every output is exactly 0 or 1."""
        return self.model.spiking

    @property
    def step(self) -> Step:
        """The model's step."""
        return self.model.step

    def inverse(self) -> Any:
        """The model's inverse.

        Raises:
            ValueError: the model has none; the message gives the reason and the cure.
        """
        return self.model.require_inverse()

    def resolve(self, scan: Scan | None) -> Scan | None:
        """The scan; a reversing scan without an inverse gets the model's.

        Raises:
            ValueError: the model has no inverse.
        """
        if not isinstance(scan, memory.Reverse) or scan.inverse is not None:
            return scan
        return scan.with_inverse(self.inverse())

    def params(self) -> Any:
        """The parameters of the step, with the learned and the constant arrays."""
        learned = {k: v[...] for k, v in self.learned.items()}
        constants = {k: jax.lax.stop_gradient(v[...]) for k, v in self.constants.items()}
        return self.model.params._replace(**learned, **constants)

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Scans the neurons by the strategy over time.

        Raises:
            ValueError: it reverses and the neuron has no inverse.
        """
        scan = request.strategy.time
        if scan is None:
            return Placed(self, self.spiking, role="neurons")
        changed = replace(self, scan=self.resolve(scan))
        return Placed(changed, self.spiking, frozenset({"time"}), "neurons")

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest, one per element of `shape`."""
        return State(self.model.initial_state(shape))

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Currents `[T, B, ...]` to spikes `[T, B, ...]`, in the dtype of the currents."""
        return run(
            self.model, self.params(), state.neurons, inputs,
            scan=self.scan, taps=call.taps, spiking=self.spiking,
        )  # fmt: skip


def run(
    step: Step,
    params: Any,
    state: Any,
    currents: Array,
    *,
    scan: Scan | None,
    taps: tuple[str, ...],
    spiking: bool = False,
) -> tuple[Array, Aux]:
    """Scans a neuron's step and taps what `taps` names.

    Args:
        step: a `neurons.Model`, or a step without a whole-sequence function.
        params: parameters of the step.
        state: state before the first timestep.
        currents: `[T, B, ...]`.
        scan: the memory strategy over time; None for the whole-sequence function.
        taps: kinds of taps, see `nn.taps`.
        spiking: True if the outputs are 0 or 1; of bfloat16 and float16 currents, spikes have the
            currents' dtype. Membranes and other outputs are float32.
    """
    membrane = None
    if is_narrow(currents):
        step, scan = mixed(step, scan, spiking=spiking)
    if "membrane" in taps:
        traced = bind(_with_membrane, step=step)
        after, (outputs, membrane) = (scan or memory.store)(traced, params, state, currents)
    else:
        after, outputs = (scan or memory.sequence)(step, params, state, currents)
    outputs = checkpoint_name(outputs, "spikes")
    seen = tapped(taps, outputs, currents=currents, params=params, membrane=membrane)
    for kinds in reconstruction("", scan, step, params, state, currents, taps).values():
        seen |= kinds
    return outputs, Aux(after, (), {"": seen} if seen else {})


def membranes(state: Any) -> Array:
    """The membrane potential in a neuron's state: its field `v`, or its first array.

    A recurrent neuron's state holds its neuron's state, in which the search continues.
    """
    while not isinstance(state, jax.Array):
        state = state.v if hasattr(state, "v") else state[0]
    return state


def _with_membrane(params, state, current, *, step):
    state, outputs = step(params, state, current)
    return state, (outputs, membranes(state))
