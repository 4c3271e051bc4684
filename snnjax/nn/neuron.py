"""A neuron model as a layer: parameters, dynamics and the scan over time.

    state after, outputs = scan(step, params, state before, currents)

With `scan=None` the layer calls the model's sequence function, or `memory.store` if the model has
none. Other scans run the step; `memory.reversal()` uses the inverse of the model. All scans give
the same values.
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
from snnjax.nn._checks import check_scan, check_state
from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, replace
from snnjax.nn.mixed_precision import mixed_step
from snnjax.nn.taps import neuron_taps, reconstruction
from snnjax.ops.arguments import as_floating, shorten
from snnjax.ops.rounding import is_narrow, widen_to
from snnjax.typing import Array, Scan, Step, bind

__all__ = ["Constant", "Neuron", "check_neuron", "membranes", "run"]


class Constant(nnx.Variable):
    """Variable of an array that is not learned, such as one decay per neuron."""


class Neuron(nnx.Module):
    """A layer of neurons of one model.

        v[t], s[t] = step(params, v[t-1], x[t])

        layer = nn.Neuron(neurons.lif_model(decay=0.9), learn=("decay",))

    Currents x `[T, B, ...]` in units of the membrane potential per timestep; outputs s
    `[T, B, ...]`; state v of the model, one per element of `[B, ...]`.

    Args:
        model: neuron model, such as `neurons.lif_model()`, or `neurons.Model(step, params,
            initial_state)` for a step of your own; its params are numbers and arrays.
        scan: memory strategy over time; None for the model's sequence function, or `memory.store`
            if the model has none.
        learn: names of the parameters to learn; the others stay constant.

    Attributes:
        model: the model, with None in place of parameters that are arrays or learned.

    Raises:
        TypeError: a parameter is neither a number nor an array.
        ValueError: `learn` names an unknown parameter; the scan reverses and the model has no
            inverse, or its inverse depends on a learned parameter.
    """

    def __init__(self, model: Model, *, scan: Scan | None = None, learn: tuple[str, ...] = ()):
        if not isinstance(model, Model):
            raise TypeError(
                f"nn.Neuron takes a model, such as neurons.lif_model(), got {shorten(model)}: a "
                "step of your own becomes neurons.Model(step, params, initial_state)"
            )
        check_scan("nn.Neuron", scan)
        if isinstance(learn, str) or not all(isinstance(name, str) for name in learn):
            raise TypeError(f'learn is a tuple of names, such as ("decay",), got {learn!r}')
        values = model.params._asdict()
        unknown = sorted(set(learn) - set(values))
        if unknown:
            raise ValueError(f"cannot learn {unknown}: the parameters here are {sorted(values)}")
        for name, value in values.items():
            if isinstance(value, tuple | list | dict) or value is None:
                raise TypeError(
                    f"the parameter {name} is a {type(value).__name__}, and a layer takes numbers "
                    "and arrays: give the model one flat NamedTuple; for feedback use nn.Recurrent"
                )
        # Plain numbers stay static: XLA folds them into the loop, and they are no leaves to save.
        numbers = {k for k, v in values.items() if k not in learn and isinstance(v, float | int)}
        self.learned = nnx.Dict(
            # Sorted names: the order of `learn` must not change the tree of a checkpoint.
            {k: nnx.Param(jnp.asarray(values[k], jnp.float32)) for k in sorted(learn)}
        )
        self.constants = nnx.Dict(
            {k: Constant(jnp.asarray(v)) for k, v in values.items() if k not in {*learn, *numbers}}
        )
        # Flax compares static attributes with ==, which arrays do not support.
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
        """The scan; a reversing scan without an inverse is given the model's inverse.

        Raises:
            ValueError: the model has no inverse.
        """
        if not isinstance(scan, memory.Reverse) or scan.inverse is not None:
            return scan
        # `memory.reversal()` names no inverse: each layer supplies that of its model.
        return scan.with_inverse(self.inverse())

    def params(self) -> Any:
        """Parameters of the step: numbers, learned arrays, and constants without a gradient."""
        learned = {k: v[...] for k, v in self.learned.items()}
        # Without it, constants would receive gradients whose bytes nobody uses.
        constants = {k: jax.lax.stop_gradient(v[...]) for k, v in self.constants.items()}
        return self.model.params._replace(**learned, **constants)

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Applies the strategy over time to the neurons' scan.

        Raises:
            ValueError: a reversing strategy, and the model has no inverse.
        """
        scan = request.strategy.time
        if scan is None:
            return Placed(self, self.spiking, role="neurons")
        # Resolved now: a model without an inverse is refused before training starts.
        changed = replace(self, scan=self.resolve(scan))
        return Placed(changed, self.spiking, frozenset({"time"}), "neurons")

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest, one per element of `shape`."""
        return State(self.model.initial_state(shape))

    def infer_shape(self, state: State, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the outputs of one step of the model."""
        # The step alone: a scan with its derivative rules takes ten times as long to trace.
        currents = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
        return jax.eval_shape(self.step, self.params(), state.neurons, currents)[1].shape

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Maps currents `[T, B, ...]` to spikes `[T, B, ...]`, in the dtype of the currents."""
        inputs = as_floating(f"nn.Neuron ({self.name})", inputs)
        check_state(self.model.initial_state, state.neurons, inputs.shape[1:])
        return run(
            self.model, self.params(), state.neurons, inputs,
            scan=self.scan, taps=call.taps, spiking=self.spiking,
        )  # fmt: skip

    def leak(self) -> float:
        """Factor `dv[t] / dv[t-1]` of the membrane without the reset, a constant number.

        Raises:
            ValueError: the neurons have more state than a membrane, or their decay is learned or
                an array.
        """
        names, cure = set(self.model.params._fields), "use memory.sltt() or memory.truncated(k)"
        state = jax.eval_shape(lambda: self.model.initial_state((1,)))
        if getattr(state, "_fields", ()) != ("v",) or names - {"decay", "threshold"}:
            raise ValueError(
                f"traces of synapses need leaky neurons with one membrane (nn.LIF, nn.IF, nn.LI), "
                f"and {self.name} has other dynamics: {cure}"
            )
        # Without a decay the neuron integrates.
        decay = self.model.params.decay if "decay" in names else 1.0
        if decay is None:
            raise ValueError(
                f"traces of synapses need a decay that is one constant number, and that of "
                f"{self.name} is learned or an array: {cure}"
            )
        return float(decay)


def check_neuron(owner: str, neuron: Any) -> None:
    """Refuses anything but a layer of neurons.

    Raises:
        TypeError: no `nn.Neuron`.
    """
    if not isinstance(neuron, Neuron):
        raise TypeError(
            f"{owner} takes a layer of neurons, such as nn.LIF(), got {shorten(neuron)}"
        )


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
    """Scans a neuron's step over currents, and returns outputs and requested taps.

    Args:
        step: a `neurons.Model`, or a step without a sequence function.
        params: parameters of the step.
        state: state before the first timestep.
        currents: `[T, B, ...]`.
        scan: memory strategy over time; None for the sequence function.
        taps: requested kinds, see `nn.taps`.
        spiking: True if the outputs are 0 or 1. Spikes have the dtype of the currents, also
            bfloat16 or float16; membranes and other outputs are float32.

    Returns:
        Outputs `[T, B, ...]`, and an `nn.Aux` with the state after the last timestep.
    """
    membrane = None
    params, state = widen_to((params, state), currents.dtype)
    # A narrow membrane would lose small currents: the step runs in float32.
    if is_narrow(currents):
        step, scan = mixed_step(step, scan, spiking=spiking)
    if "membrane" in taps:
        # A sequence function returns no membranes, so this tap needs a scan of the step.
        traced = bind(_with_membrane, step=step)
        after, (outputs, membrane) = (scan or memory.store)(traced, params, state, currents)
    else:
        after, outputs = (scan or memory.sequence)(step, params, state, currents)
    # Strategies name this residual: memory.recompute(keep=("spikes",)).
    outputs = checkpoint_name(outputs, "spikes")
    arrays = neuron_taps(taps, outputs, currents=currents, params=params, membrane=membrane)
    for kinds in reconstruction("", scan, step, params, state, currents, taps).values():
        arrays |= kinds
    return outputs, Aux(after, (), {"": arrays} if arrays else {})


def membranes(state: Any) -> Array:
    """Membrane potential in a neuron's state: the field `v`, or the first array.

    Args:
        state: state of a neuron, or of a recurrent one, which nests that of its inner neuron.
    """
    while not isinstance(state, jax.Array):
        state = state.v if hasattr(state, "v") else state[0]
    return state


def _with_membrane(params, state, current, *, step):
    state, outputs = step(params, state, current)
    return state, (outputs, membranes(state))
