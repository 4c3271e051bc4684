"""A neuron model: step, parameters, resting state, whole-sequence function and inverse.

`lif_model` and its siblings make the models of this package, `neurons.compat` those of other
libraries. `nn.Neuron` makes a layer of a model, and `nn.check_model` tests one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

from snnjax.ops.arguments import check_numbers, shorten
from snnjax.surrogate import Surrogate
from snnjax.typing import Array, Bound, PyTree, Step, bind

__all__ = [
    "Inverse",
    "Model",
    "Parameter",
    "Refusal",
    "Sequence",
    "bind_sequence",
    "check_options",
]

Parameter: TypeAlias = Array | float
Inverse: TypeAlias = Callable[..., PyTree]
Sequence: TypeAlias = Callable[..., tuple[PyTree, PyTree]]


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A model has no inverse.

    Attributes:
        reason: text of the ValueError that a reversing scan raises; names the cure.
    """

    reason: str


@dataclasses.dataclass(frozen=True)
class Model:
    """A neuron: dynamics, parameters and resting state, compared with `==`.

        step       (params, state, current) -> (state, outputs)       one timestep, [B, ...]
        sequence   (params, state, currents) -> (state, outputs)      all timesteps, [T, B, ...]
        inverse    (params, state after, current, outputs) -> state before

    A model is itself a `Step`, so every scan of `snnjax.memory` takes it in place of its step.

    Args:
        step: pure function of one timestep, its options bound by `typing.bind`.
        params: NamedTuple of numbers and arrays that broadcast against one timestep.
        initial_state: `(shape) -> state` at rest, for currents of shape `(B, ...)`.
        sequence: equal in value to scanning `step`, with a derivative of its own; None scans the
            step.
        inverse: undoes one step. Its optional attribute `steps` is the number of steps it can undo
            in a row (None: unlimited), and `fixed` names the parameters that determine this
            number. A `Refusal` states why no inverse exists; None states no reason.
        spiking: True if every output is exactly 0 or 1, so that one bit can keep it.
        rest: offset of the membrane potential in another library's model, theirs = ours + `rest`.
        name: name of the layer in taps.

    Example:
        model = neurons.lif_model(decay=0.9)
        state = model.initial_state((B, N))
        state, spikes = memory.recompute(8)(model.step, model.params, state, currents)

        own = neurons.Model(my_step, MyParams(decay=0.9), jnp.zeros)
        layer = nn.Neuron(own, scan=memory.recompute(8), learn=("decay",))
    """

    # A bound step (`typing.bind`) compares with `==`; a lambda or a partial would make equal models
    # unequal, and every new network would compile again.
    step: Step
    params: Any
    initial_state: Callable[..., PyTree]
    sequence: Sequence | None = None
    inverse: Inverse | Refusal | None = None
    spiking: bool = True
    rest: float = 0.0
    name: str = "neuron"

    def __call__(self, params: PyTree, state: PyTree, current: Array) -> tuple[PyTree, Array]:
        """Runs one timestep of `step`."""
        return self.step(params, state, current)

    def require_inverse(self) -> Inverse:
        """Returns the inverse.

        Raises:
            ValueError: the model has no inverse; the message names the reason and the cure.
        """
        if self.inverse is None:
            raise ValueError(f"{self.name} neurons offer no inverse: use memory.recompute(every)")
        if isinstance(self.inverse, Refusal):
            raise ValueError(self.inverse.reason)
        return self.inverse

    def with_learned(self, names: tuple[str, ...]) -> Model:
        """Returns the model for training the named parameters.

        An inverse whose number of steps depends on one of them becomes a `Refusal`.
        """
        # Training moves a learned parameter away from the value that bounds the number of steps.
        learned = [name for name in getattr(self.inverse, "fixed", ()) if name in names]
        if not learned:
            return self
        return dataclasses.replace(self, inverse=unknown_parameter(learned[0]))


def unknown_parameter(name: str) -> Refusal:
    """Refusal of an inverse whose number of steps depends on a parameter of unknown value."""
    return Refusal(
        f"the {name} is not known beforehand (it is learned or traced), so neither is the number "
        "of steps that can be undone: use memory.recompute(every)"
    )


# Admitted values of parameters, as bounds of `check_numbers`.
_BOUNDS: dict[str, dict[str, float]] = {
    "decay": {"above": 0, "most": 1},
    "adaptation_decay": {"above": 0, "most": 1},
    "synaptic_decay": {"least": 0, "below": 1},
    "threshold": {"above": 0},
    "alpha": {"above": 0},
    "beta": {"above": 0},
    "strength": {},
}


def check_options(owner: str, *, spike: Any = None, reset: Any = None, **parameters: Any) -> None:
    """Checks the options of a neuron model where they are written.

    Args:
        owner: name of the function that takes them.
        spike: spike function.
        reset: reset rule.
        parameters: parameters by name, numbers or arrays; traced ones are unknown and pass.

    Raises:
        TypeError: a parameter is no number, `spike` no spike function or `reset` no reset rule.
        ValueError: a parameter is outside its range or NaN.
    """
    for name, value in parameters.items():
        check_numbers(owner, **_BOUNDS[name], **{name: value})
    # A maker in place of what it makes, `surrogate.arctan`, is a function, too.
    made = isinstance(spike, Surrogate) or getattr(spike, "__module__", "") != Surrogate.__module__
    if spike is not None and not (callable(spike) and made):
        raise TypeError(
            f"{owner}: spike must be a spike function, such as surrogate.arctan(), got "
            f"{shorten(spike)}"
        )
    if reset is not None and not (callable(reset) and hasattr(reset, "delay")):
        raise TypeError(
            f"{owner}: reset must be a reset rule, such as neurons.reset.subtract or "
            f"neurons.reset.to(0.0), got {shorten(reset)}"
        )


def bind_sequence(function: Sequence, *, reset: Any, **options: Any) -> Sequence | None:
    """Binds the options of a step to its whole-sequence function.

    Args:
        function: such as `lif_scan`, or `bind(lif_kernel, block=256)`, which keeps its options.
        reset: reset of the step.
        options: other options of the step.

    Returns:
        The bound function; None for a delayed reset.
    """
    # The hand-written derivatives keep one membrane per step, a delayed reset needs two.
    if reset.delay:
        return None
    if isinstance(function, Bound):
        # Flattened, so that equal options give equal functions however often they were bound.
        function, options = function.function, {**dict(function.options), **options}
    return bind(function, reset=reset, **options)
