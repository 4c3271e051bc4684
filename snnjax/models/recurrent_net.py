"""Recurrent network of multi-bit spikes for real sequences: improved inherent recurrence dynamics.

coder - [linear - norm - integrator] * layers - linear - norm

Reference: Ponghiran and Roy, "Spiking Neural Networks with Improved Inherent Recurrence Dynamics
for Sequential Learning", AAAI 2022, arXiv:2109.01905.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import nnx

from snnjax import neurons, nn
from snnjax.memory import Strategy
from snnjax.models._assembly import finish
from snnjax.ops.arguments import check_counts

__all__ = ["recurrent_net"]

_KERNEL = nnx.initializers.variance_scaling(1.0, "fan_in", "uniform")
# Uniform within sqrt(0.01 / (H + O)).
_READOUT = nnx.initializers.variance_scaling(0.01 / 6, "fan_avg", "uniform")


def recurrent_net(
    inputs: int,
    *,
    layers: int = 2,
    hidden: int = 550,
    classes: int = 10,
    cell: str = "v2",
    bits: int = 6,
    threshold: int = 3,
    dropout: float = 0.0,
    parallel: bool = False,
    gain: float = 2**0.5,
    norm: Callable[[int], Any] = nn.BatchNorm,
    rngs: nnx.Rngs,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """Recurrent network, one timestep per frame of a real sequence, `[T, B, D] -> [T, B, classes]`.

        coder - [linear - norm - integrator] * layers - linear - norm

    The outputs are logits of every frame; their log softmax is the paper's readout. The published
    networks have 2 layers of 550 neurons, and are trained with `dropout=0.2`.

    Args:
        inputs: D, features of a frame.
        layers: number of layers of integrators.
        hidden: neurons per layer, H.
        classes: number of outputs.
        cell: "leaky", the baseline; "v1", gated; or "v2", gated with feedback.
        bits: bits of a spike with its sign.
        threshold: largest magnitude of a code that is no spike.
        dropout: rate of the mask of the integrators, equal at all timesteps.
        parallel: currents of "leaky" and "v1" by an associative scan, see `nn.Integrator`.
        gain: initial scale of the feedback of "v2", see `nn.Integrator`.
        norm: `(channels) -> layer`, a normalisation of the inputs of gates, candidates and
            readout; `order="time"` needs `functools.partial(nn.BatchNorm, over="step")`, or one
            without batch statistics.
        rngs: random streams of the parameters.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: memory strategy of the gradient; None for `memory.store` over time. Reversal over
            time is refused, since a gate near 0 forgets its current.

    Raises:
        ValueError: an unknown cell, a parallel "v2", or a reversal over time.

    Reference:
        Ponghiran and Roy, "Spiking Neural Networks with Improved Inherent Recurrence Dynamics for
        Sequential Learning", AAAI 2022, arXiv:2109.01905.
    """
    check_counts("models.recurrent_net", inputs=inputs, layers=layers, hidden=hidden)
    check_counts("models.recurrent_net", classes=classes)
    coder = neurons.sigma_delta.Coder(bits=bits, threshold=threshold)
    options: dict[str, Any] = {"cell": cell, "coder": coder, "dropout": dropout}
    options |= {"parallel": parallel, "gain": gain}
    # The raw features pass through the same coder, so that the first products are with spikes, too.
    body: list[Any] = [nn.SigmaDelta(coder=coder)]
    width, rows = inputs, hidden if cell == "leaky" else 2 * hidden
    for _ in range(layers):
        body += [
            nn.Linear(width, rows, use_bias=False, kernel_init=_KERNEL, rngs=rngs),
            # One norm over gates and candidates is two norms: its statistics are per channel.
            norm(rows),
            nn.Integrator(hidden, rngs=rngs, **options),
        ]
        width = hidden
    body += [
        nn.Linear(width, classes, use_bias=False, kernel_init=_READOUT, rngs=rngs),
        norm(classes),
    ]
    return finish(body, (inputs,), order, memory)
