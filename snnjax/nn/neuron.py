"""A neuron model as a layer: its parameters, its dynamics and the scan over time.

    outputs, state after = scan(step, params, state before, currents)

`Neuron` wraps any pure step; `IF`, `LIF`, `PLIF`, `ALIF`, `CubaLIF` and `LI` fill it in for the
models of `snnjax.neurons`. With `scan=None` a model that has a whole-sequence function with a
hand-written derivative uses it, and plain `memory.store` otherwise; a given scan is used as it is.
The values are the same under each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from snnjax import memory, neurons
from snnjax.neurons.reset import Reset, subtract
from snnjax.nn.contract import Aux, State
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array, Key, Scan, Step, bind

__all__ = ["ALIF", "IF", "LI", "LIF", "PLIF", "Constant", "CubaLIF", "Neuron", "membranes"]


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

    Raises:
        ValueError: `learn` names a parameter that the neuron does not have.
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
    ):
        values = params._asdict()
        unknown = sorted(set(learn) - set(values))
        if unknown:
            raise ValueError(f"cannot learn {unknown}: the parameters here are {sorted(values)}")
        self.step, self.initial, self.whole, self.scan = step, initial, whole, scan
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

    def params(self) -> Any:
        """The parameters as the step takes them."""
        learned = {k: v[...] for k, v in self.learned.items()}
        constants = {k: jax.lax.stop_gradient(v[...]) for k, v in self.constants.items()}
        return self.kind(**dict(self.numbers), **learned, **constants)

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest, one per element of `shape`."""
        return State(self.initial(shape))

    def __call__(
        self,
        inputs: Array,
        state: State,
        *,
        training: bool,
        key: Key | None = None,
        taps: tuple[str, ...] = (),
    ) -> tuple[Array, Aux]:
        """Currents `[T, B, ...]` to spikes `[T, B, ...]`."""
        del training, key
        return run(
            self.step, self.params(), state.neurons, inputs,
            whole=self.whole, scan=self.scan, taps=taps,
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
) -> tuple[Array, Aux]:
    """Scans a neuron's step by the strategy asked for, and taps what is asked to be seen."""
    seen = {}
    if "membrane" in taps:
        traced = bind(_with_membrane, step=step)
        after, (outputs, seen["membrane"]) = (scan or memory.store)(traced, params, state, currents)
    elif scan is None and whole is not None:
        after, outputs = whole(params, state, currents)
    else:
        after, outputs = (scan or memory.store)(step, params, state, currents)
    outputs = checkpoint_name(outputs, "spikes")
    if "spikes" in taps:
        seen["spikes"] = outputs
    return outputs, Aux(after, (), {"": seen} if seen else {})


def membranes(state: Any) -> Array:
    """The membrane potential in a neuron's state: its field `v`, or its first array.

    A recurrent neuron's state holds its neuron's state; the search goes down into it.
    """
    while not isinstance(state, jax.Array):
        state = state.v if hasattr(state, "v") else state[0]
    return state


def _with_membrane(params, state, current, *, step):
    state, outputs = step(params, state, current)
    return state, (outputs, membranes(state))


def IF(
    *,
    threshold: float | Array = 1.0,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scan: Scan | None = None,
    learn: tuple[str, ...] = (),
) -> Neuron:
    """Integrate-and-fire neurons without a leak; see `neurons.integrate_fire`."""
    return Neuron(
        bind(neurons.integrate_fire, spike=spike, reset=reset),
        neurons.integrate_fire_state,
        neurons.IFParams(threshold),  # type: ignore[arg-type]
        whole=_whole(neurons.integrate_fire_scan, spike=spike, reset=reset),
        scan=scan,
        learn=learn,
        name="if",
    )


def LIF(
    *,
    decay: float | Array = 0.5,
    threshold: float | Array = 1.0,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = False,
    scan: Scan | None = None,
    learn: tuple[str, ...] = (),
) -> Neuron:
    """Leaky integrate-and-fire neurons; see `neurons.lif`.

    A decay in `learn` is not kept inside (0, 1]: `PLIF` learns it through a sigmoid.
    """
    options = {"spike": spike, "reset": reset, "scale_input": scale_input}
    return Neuron(
        bind(neurons.lif, **options),
        neurons.lif_state,
        neurons.LIFParams(decay, threshold),  # type: ignore[arg-type]
        whole=_whole(neurons.lif_scan, **options),
        scan=scan,
        learn=learn,
        name="lif",
    )


def PLIF(
    *,
    decay: float = 0.5,
    threshold: float | Array = 1.0,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = True,
    scan: Scan | None = None,
    learn: tuple[str, ...] = ("w",),
) -> Neuron:
    """LIF neurons that learn one decay per layer, starting from `decay`; see `neurons.plif`."""
    options = {"spike": spike, "reset": reset, "scale_input": scale_input}
    return Neuron(
        bind(neurons.plif, **options),
        neurons.plif_state,
        neurons.PLIFParams(neurons.plif_weight(decay), threshold),  # type: ignore[arg-type]
        whole=_whole(neurons.plif_scan, **options),
        scan=scan,
        learn=learn,
        name="plif",
    )


def ALIF(
    *,
    decay: float | Array = 0.9,
    threshold: float | Array = 1.0,
    adaptation_decay: float | Array = 0.97,
    strength: float | Array = 0.2,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = False,
    scan: Scan | None = None,
    learn: tuple[str, ...] = (),
) -> Neuron:
    """LIF neurons whose threshold rises with every spike; see `neurons.alif`."""
    return Neuron(
        bind(neurons.alif, spike=spike, reset=reset, scale_input=scale_input),
        neurons.alif_state,
        neurons.ALIFParams(decay, threshold, adaptation_decay, strength),  # type: ignore[arg-type]
        scan=scan,
        learn=learn,
        name="alif",
    )


def CubaLIF(
    *,
    decay: float | Array = 0.9,
    synaptic_decay: float | Array = 0.8,
    threshold: float | Array = 1.0,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = False,
    scan: Scan | None = None,
    learn: tuple[str, ...] = (),
) -> Neuron:
    """Current-based LIF neurons, with a synaptic and a membrane decay; see `neurons.cuba_lif`."""
    return Neuron(
        bind(neurons.cuba_lif, spike=spike, reset=reset, scale_input=scale_input),
        neurons.cuba_lif_state,
        neurons.CubaLIFParams(decay, synaptic_decay, threshold),  # type: ignore[arg-type]
        scan=scan,
        learn=learn,
        name="cubalif",
    )


def LI(
    *,
    decay: float | Array = 0.9,
    scale_input: bool = False,
    scan: Scan | None = None,
    learn: tuple[str, ...] = (),
) -> Neuron:
    """Leaky integrators, the non-spiking readout; see `neurons.li`."""
    return Neuron(
        bind(neurons.li, scale_input=scale_input),
        neurons.li_state,
        neurons.LIParams(decay),  # type: ignore[arg-type]
        scan=scan,
        learn=learn,
        name="li",
    )


def _whole(function: Callable[..., Any], *, reset: Reset, **options: Any):
    """The whole-sequence function, where its derivative admits the reset."""
    return None if reset.delay else bind(function, reset=reset, **options)
