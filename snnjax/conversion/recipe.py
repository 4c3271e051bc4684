"""Options of a conversion as one value, and its text form.

    Recipe(reset="hard")      "reset=hard, shift=initial, last=linear"

A run of a converted network holds the text: the experiment builds the source, and the recipe gives
it the layers of the spiking network, whose weights are those of the checkpoint.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from snnjax import neurons, nn
from snnjax.conversion.spiking import OUTPUTS, activation_names, to_spiking
from snnjax.ops.arguments import check_choice
from snnjax.typing import PyTree

__all__ = ["Recipe", "parse_recipe"]

_CHOICES = {
    "reset": ("soft", "hard"),
    "shift": ("initial", "step", "none"),
    "last": ("linear", "spiking"),
    "latency": ("no", "yes"),
}
_RESETS = {"soft": neurons.reset.subtract, "hard": neurons.reset.zero}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Options of `to_spiking` that decide the layers of a spiking network.

    Attributes:
        reset: `"soft"` subtracts the threshold at a spike, `"hard"` resets to zero.
        shift: `"initial"` starts at half a threshold, `"step"` adds the same charge over all
            timesteps, `"none"` rounds rates down.
        last: `"linear"`, or `"spiking"` for neurons behind the last synapse.
        latency: `"yes"` fires one timestep late, on the membrane before.

    Raises:
        ValueError: another value.
    """

    reset: str = "soft"
    shift: str = "initial"
    last: str = "linear"
    latency: str = "no"

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            check_choice("conversion.Recipe", choices=choices, **{name: getattr(self, name)})

    def __str__(self) -> str:
        """The options, such as `reset=soft, shift=initial, last=linear, latency=no`."""
        return ", ".join(f"{name}={value}" for name, value in dataclasses.asdict(self).items())

    def convert(
        self,
        net: nn.Network,
        thresholds: Mapping[str, Any],
        *,
        statistics: PyTree | None = None,
        timesteps: int | None = None,
    ) -> nn.Network:
        """The spiking network, see `to_spiking`.

        Args:
            net: the source.
            thresholds: by the names of the activations.
            statistics: running statistics of the source.
            timesteps: T, used by `shift="step"` alone.
        """
        step = timesteps if self.shift == "step" else None
        return to_spiking(net, thresholds, statistics=statistics, timesteps=step, **self.options())

    def options(self) -> dict[str, Any]:
        """The arguments of `to_spiking`."""
        return {
            "reset": _RESETS[self.reset],
            "shift": None if self.shift == "none" else self.shift,
            "last": self.last,
            "latency": self.latency == "yes",
        }

    def structure(self, net: nn.Network) -> nn.Network:
        """The layers of the spiking network, with weights of no meaning.

        Args:
            net: the source, trained or not.
        """
        # The layers depend neither on measured thresholds nor on statistics nor on T.
        own = {name: layer.bound() for name, layer in activation_names(net).items()}
        # Constant bounds stay: equal ones need no change of units between them.
        names = [name for name, bound in own.items() if not isinstance(bound, int | float)]
        names += [OUTPUTS] if self.last == "spiking" else []
        thresholds = {name: jnp.ones(()) for name in names}
        statistics = net.initial_state(1).statistics
        return self.convert(net, thresholds, statistics=statistics, timesteps=1)


def parse_recipe(text: str) -> Recipe:
    """Reads the text form of a recipe; options that it leaves out have their defaults.

    Args:
        text: such as `"reset=hard, shift=step"`.

    Raises:
        ValueError: an unknown option or value, or no `name=value`.
    """
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    values = {name.strip(): value.strip() for name, _, value in pairs}
    unknown = sorted(set(values) - set(_CHOICES))
    if unknown or len(values) != len(pairs):
        raise ValueError(
            f'{text!r} is no recipe of a conversion: write options once each, such as "{Recipe()}"'
        )
    return Recipe(**values)
