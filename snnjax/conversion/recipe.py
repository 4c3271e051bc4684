"""Options of a conversion as one value, by which a run of a converted network is rebuilt.

The experiment of the run builds the source, and the recipe gives it the layers of the spiking
network, whose weights are those of the checkpoint.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from snnjax import neurons, nn
from snnjax.conversion.spiking import OUTPUTS, activation_names, to_spiking
from snnjax.ops.arguments import check_choice, check_flags
from snnjax.typing import PyTree

__all__ = ["Recipe"]

_RESETS = {"soft": neurons.reset.subtract, "hard": neurons.reset.zero}
_SHIFTS = {"initial": "initial", "step": "step", "none": None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Options of `to_spiking` that decide the layers of a spiking network.

    Attributes:
        reset: `"soft"` subtracts the threshold at a spike, `"hard"` resets to zero.
        shift: `"initial"` starts at half a threshold, `"step"` adds the same charge over all
            timesteps, `"none"` rounds rates down.
        last: `"linear"`, or `"spiking"` for neurons behind the last synapse.
        latency: fire one timestep late, on the membrane before.

    Raises:
        ValueError: another value.
    """

    reset: str = "soft"
    shift: str = "initial"
    last: str = "linear"
    latency: bool = False

    def __post_init__(self):
        owner = "conversion.Recipe"
        check_choice(owner, choices=tuple(_RESETS), reset=self.reset)
        check_choice(owner, choices=tuple(_SHIFTS), shift=self.shift)
        check_choice(owner, choices=("linear", "spiking"), last=self.last)
        check_flags(owner, latency=self.latency)

    def options(self) -> dict[str, Any]:
        """The arguments of `to_spiking`."""
        return {
            "reset": _RESETS[self.reset],
            "shift": _SHIFTS[self.shift],
            "last": self.last,
            "latency": self.latency,
        }

    def convert(
        self,
        net: nn.Network,
        thresholds: Mapping[str, Any],
        *,
        statistics: PyTree | None = None,
        timesteps: int,
    ) -> nn.Network:
        """The spiking network, see `to_spiking`.

        Args:
            net: the source.
            thresholds: by the names of the activations.
            statistics: running statistics of the source.
            timesteps: T, used by `shift="step"` alone.
        """
        step = timesteps if self.shift == "step" else None
        options = self.options()
        return to_spiking(
            net, thresholds=thresholds, statistics=statistics, timesteps=step, **options
        )

    def structure(self, net: nn.Network) -> nn.Network:
        """The layers of the spiking network, with weights of no meaning.

        Args:
            net: the source, trained or not.
        """
        # The layers depend neither on measured thresholds nor on statistics nor on T.
        bounds = {name: layer.bound() for name, layer in activation_names(net).items()}
        # Constant bounds stay: equal ones need no change of units between them.
        names = [name for name, bound in bounds.items() if not isinstance(bound, int | float)]
        names += [OUTPUTS] if self.last == "spiking" else []
        thresholds = {name: jnp.ones(()) for name in names}
        statistics = net.initial_state(1).statistics
        return self.convert(net, thresholds, statistics=statistics, timesteps=1)
