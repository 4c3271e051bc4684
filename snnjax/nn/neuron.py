"""A neuron model as a layer: its parameters, its dynamics and the scan over time.

    outputs, state after = scan(step, params, state before, currents)

`Neuron` wraps any pure step; `nn.neuron_models` fills it in for the models of `snnjax.neurons`.
With `scan=None` a model that has a whole-sequence function with a hand-written derivative uses it,
and plain `memory.store` otherwise; a given scan is used as it is, and `memory.reversal()` takes the
inverse that the neuron offers. The values are the same under each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from snnjax import memory
from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, replace
from snnjax.nn.mixed_precision import mixed
from snnjax.nn.taps import reconstruction, tapped
from snnjax.ops.rounding import is_narrow
from snnjax.typing import Array, Scan, Step, bind

__all__ = ["Constant", "Neuron", "membranes", "run"]


class Constant(nnx.Variable):
    """An array a module holds but does not learn, such as one decay per neuron."""


class Neuron(nnx.Module):
    """A layer of neurons with dynamics `step`.

    Args:
        step: `(params, state, current) -> (state, outputs)`, comparable (see `typing.bind`).
        initial: `(shape) -> state` at rest, for one timestep of currents `(B, ...)`.
        params: the step's parameters, a NamedTuple of numbers and arrays.
        whole: `(params, state, currents) -> (state, outputs)`, equal to scanning `step`.
        scan: the memory strategy over time; None for `whole`, or `memory.store` without one.
        learn: names of the parameters to learn; the others stay as they are.
        name: what taps call the layer.
        spiking: whether the outputs are spikes, 0 or 1 exactly; they can be kept as bits then.
        inverse: `() -> inverse` for `memory.reversal()`, or a ValueError that says why there is
            none; comparable.

    Raises:
        ValueError: `learn` names a parameter that the neuron does not have; the scan reverses and
            the neuron has no inverse.
    """

    def __init__(
        self,
        step: Step,
        initial: Callable[..., Any],
        params: NamedTuple,
        *,
        whole: Callable[..., Any] | None = None,
        scan: Scan | None = None,
        learn: tuple[str, ...] = (),
        name: str = "neuron",
        spiking: bool = False,
        inverse: Callable[[], Any] | None = None,
    ):
        values = params._asdict()
        unknown = sorted(set(learn) - set(values))
        if unknown:
            raise ValueError(f"cannot learn {unknown}: the parameters here are {sorted(values)}")
        self.step, self.initial, self.whole = step, initial, whole
        self.spiking, self.inverse = spiking, inverse
        self.scan = self.resolve(scan)
        self.kind: Callable[..., Any] = type(params)
        self.name = name
        numbers = {k: v for k, v in values.items() if k not in learn and isinstance(v, float | int)}
        self.numbers = tuple(sorted(numbers.items()))
        self.learned = nnx.Dict(
            {k: nnx.Param(jnp.asarray(values[k], jnp.float32)) for k in sorted(learn)}
        )
        self.constants = nnx.Dict(
            {k: Constant(jnp.asarray(v)) for k, v in values.items() if k not in {*learn, *numbers}}
        )

    def resolve(self, scan: Scan | None) -> Scan | None:
        """The scan, with this neuron's inverse where it reverses and brings none."""
        if not isinstance(scan, memory.Reverse) or scan.inverse is not None:
            return scan
        if self.inverse is None:
            raise ValueError(f"{self.name} neurons offer no inverse: use memory.recompute(every)")
        return scan.by(self.inverse())

    def params(self) -> Any:
        """The parameters as the step takes them."""
        learned = {k: v[...] for k, v in self.learned.items()}
        constants = {k: jax.lax.stop_gradient(v[...]) for k, v in self.constants.items()}
        return self.kind(**dict(self.numbers), **learned, **constants)

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
        return State(self.initial(shape))

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Currents `[T, B, ...]` to spikes `[T, B, ...]`, in the dtype of the currents."""
        return run(
            self.step, self.params(), state.neurons, inputs,
            whole=self.whole, scan=self.scan, taps=call.taps, spiking=self.spiking,
        )  # fmt: skip


def run(
    step: Step,
    params: Any,
    state: Any,
    currents: Array,
    *,
    whole: Callable[..., Any] | None,
    scan: Scan | None,
    taps: tuple[str, ...],
    spiking: bool = False,
) -> tuple[Array, Aux]:
    """Scans a neuron's step by the strategy asked for, and taps what is asked to be seen.

    Args:
        step: of the neuron.
        params: of the step.
        state: before the first timestep.
        currents: `[T, B, ...]`.
        whole: equal to scanning `step`, or None.
        scan: the memory strategy over time, or None.
        taps: what to look at, see `nn.taps`.
        spiking: whether the outputs are 0 or 1. Of currents in bfloat16 or float16, spikes have the
            same dtype; membranes and outputs that are no spikes are float32.
    """
    membrane = None
    step = step if whole is None else WithWhole(step, whole)
    if is_narrow(currents):
        step, scan = mixed(step, scan, spiking=spiking)
    if "membrane" in taps:
        traced = bind(_with_membrane, step=step)
        after, (outputs, membrane) = (scan or memory.store)(traced, params, state, currents)
    else:
        after, outputs = (scan or memory.whole)(step, params, state, currents)
    outputs = checkpoint_name(outputs, "spikes")
    seen = tapped(taps, outputs, currents=currents, params=params, membrane=membrane)
    for kinds in reconstruction("", scan, step, params, state, currents, taps).values():
        seen |= kinds
    return outputs, Aux(after, (), {"": seen} if seen else {})


def membranes(state: Any) -> Array:
    """The membrane potential in a neuron's state: its field `v`, or its first array.

    A recurrent neuron's state holds its neuron's state; the search goes down into it.
    """
    while not isinstance(state, jax.Array):
        state = state.v if hasattr(state, "v") else state[0]
    return state


@dataclasses.dataclass(frozen=True)
class WithWhole:
    """A step that knows a function of the whole sequence, see `memory.whole`."""

    step: Step
    whole: Callable[..., Any]

    def __call__(self, params: Any, state: Any, current: Array) -> tuple[Any, Array]:
        """One timestep."""
        return self.step(params, state, current)


def _with_membrane(params, state, current, *, step):
    state, outputs = step(params, state, current)
    return state, (outputs, membranes(state))
