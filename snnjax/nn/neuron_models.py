"""The neuron models of `snnjax.neurons` as layers: their options, filled into `Neuron`.

A model with a whole-sequence derivative of its own uses it unless a scan is given; `whole=` chooses
another of the same values, such as `neurons.lif_kernel` for `neurons.lif_scan`. Each offers
the inverse that `memory.reversal()` asks for, or says why it has none: a hard reset forgets, and a
learned decay may become too small to be undone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from snnjax import neurons
from snnjax.neurons.reset import Reset, subtract
from snnjax.nn.neuron import Neuron
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array, Bound, Scan, bind

__all__ = ["ALIF", "IF", "LI", "LIF", "PLIF", "CoupledLIF", "CubaLIF"]


def IF(
    *,
    threshold: float | Array = 1.0,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scan: Scan | None = None,
    whole: Callable[..., Any] = neurons.integrate_fire_scan,
    learn: tuple[str, ...] = (),
) -> Neuron:
    """Integrate-and-fire neurons without a leak; see `neurons.integrate_fire`."""
    return Neuron(
        bind(neurons.integrate_fire, spike=spike, reset=reset),
        neurons.integrate_fire_state,
        neurons.IFParams(threshold),  # type: ignore[arg-type]
        whole=_whole(whole, spike=spike, reset=reset),
        scan=scan,
        learn=learn,
        name="if",
        spiking=True,
        inverse=_inverse(neurons.integrate_fire_inverse, reset=reset),
    )


def LIF(
    *,
    decay: float | Array = 0.5,
    threshold: float | Array = 1.0,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = False,
    scan: Scan | None = None,
    whole: Callable[..., Any] = neurons.lif_scan,
    learn: tuple[str, ...] = (),
) -> Neuron:
    """Leaky integrate-and-fire neurons; see `neurons.lif`.

    A decay in `learn` is not kept inside (0, 1]: `PLIF` learns it through a sigmoid. Without a scan
    `whole` runs the sequence: `neurons.lif_scan`, or `neurons.lif_kernel` where it is faster.
    """
    options = {"spike": spike, "reset": reset, "scale_input": scale_input}
    return Neuron(
        bind(neurons.lif, **options),
        neurons.lif_state,
        neurons.LIFParams(decay, threshold),  # type: ignore[arg-type]
        whole=_whole(whole, **options),
        scan=scan,
        learn=learn,
        name="lif",
        spiking=True,
        inverse=_inverse(
            neurons.lif_inverse, learn, decay=decay, reset=reset, scale_input=scale_input
        ),
    )


def PLIF(
    *,
    decay: float = 0.5,
    threshold: float | Array = 1.0,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = True,
    scan: Scan | None = None,
    whole: Callable[..., Any] = neurons.plif_scan,
    learn: tuple[str, ...] = ("w",),
) -> Neuron:
    """LIF neurons that learn one decay per layer, starting from `decay`; see `neurons.plif`."""
    options = {"spike": spike, "reset": reset, "scale_input": scale_input}
    return Neuron(
        bind(neurons.plif, **options),
        neurons.plif_state,
        neurons.PLIFParams(neurons.plif_weight(decay), threshold),  # type: ignore[arg-type]
        whole=_whole(whole, **options),
        scan=scan,
        learn=learn,
        name="plif",
        spiking=True,
        inverse=_inverse(
            neurons.plif_inverse,
            decay=None if "w" in learn else decay, reset=reset, scale_input=scale_input,
        ),
    )  # fmt: skip


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
        spiking=True,
        inverse=_inverse(
            neurons.alif_inverse, learn, decay=decay, adaptation_decay=adaptation_decay,
            reset=reset, scale_input=scale_input,
        ),
    )  # fmt: skip


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
        spiking=True,
        inverse=_inverse(
            neurons.cuba_lif_inverse, learn, decay=decay, synaptic_decay=synaptic_decay,
            reset=reset, scale_input=scale_input,
        ),
    )  # fmt: skip


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
        inverse=_inverse(neurons.li_inverse, learn, decay=decay, scale_input=scale_input),
    )


def CoupledLIF(
    *,
    decay: float | Array = 0.5,
    threshold: float | Array = 1.0,
    alpha: float | Array = 0.5,
    beta: float | Array = 0.5,
    spike: Surrogate = arctan(),
    scan: Scan | None = None,
    learn: tuple[str, ...] = (),
) -> Neuron:
    """Pairs of LIF neurons that can be undone through a hard reset; see `neurons.coupled_lif`.

    The channels are even in number, and the outputs are real-valued, not spikes.
    """
    return Neuron(
        bind(neurons.coupled_lif, spike=spike),
        neurons.coupled_lif_state,
        neurons.CoupledLIFParams(decay, threshold, alpha, beta),  # type: ignore[arg-type]
        scan=scan,
        learn=learn,
        name="coupledlif",
        inverse=bind(
            _made,
            maker=neurons.coupled_lif_inverse,
            decay=None if "decay" in learn else _extreme(np.max, decay),
            alpha=None if "alpha" in learn else _extreme(np.min, alpha),
        ),
    )


def _whole(function: Callable[..., Any], *, reset: Reset, **options: Any):
    """The whole-sequence function, where its derivative admits the reset."""
    if reset.delay:
        return None
    if isinstance(function, Bound):  # with options of its own, such as a kernel's block
        function, options = function.function, {**dict(function.options), **options}
    return bind(function, reset=reset, **options)


def _inverse(maker: Callable[..., Any], learn: tuple[str, ...] = (), **options: Any) -> Bound:
    """Makes the inverse when it is asked for: from the smallest decays, where they are known."""
    for name in [name for name in options if name.endswith("decay")]:
        options[name] = None if name in learn else _extreme(np.min, options[name])
    return bind(_made, maker=maker, **options)


def _extreme(of: Callable[..., Any], value: float | Array | None) -> float | None:
    """The smallest or largest entry; None for what is not known now."""
    try:
        return None if value is None else float(of(np.asarray(value)))
    except jax.errors.TracerArrayConversionError:  # the network is made under a trace
        return None


def _made(*, maker: Callable[..., Any], **options: Any) -> Any:
    for name, value in options.items():
        if value is None:
            raise ValueError(
                f"the {name} is not known beforehand (it is learned), so neither is how often it "
                "can be undone: use memory.recompute(every)"
            )
    return maker(**options)
