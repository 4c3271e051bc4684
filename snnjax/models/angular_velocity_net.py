"""Six-layer SNN that regresses the angular velocity of a rotating event camera.

[conv - SRM neurons] * 5 - mean over space - linear - postsynaptic potential

Reference: Gehrig, Shrestha, Mouritzen, Scaramuzza, "Event-Based Angular Velocity Regression with
Spiking Networks", ICRA 2020, arXiv:2003.02790.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from flax import nnx

from snnjax import nn, surrogate
from snnjax.memory import Strategy
from snnjax.models._assembly import finish

__all__ = ["STAGES", "Stage", "angular_velocity_net"]


class Stage(NamedTuple):
    """A convolution and its SRM neurons.

    Attributes:
        channels: number of output channels.
        stride: stride of the 3x3 convolution, without padding.
        threshold: theta.
        tau: time constant of the response to inputs, in timesteps of 1 ms.
        refractory_tau: time constant of the response to a spike, in timesteps.
        rho: slope of the surrogate at the threshold, in units of 1 / theta.
    """

    channels: int
    stride: int
    threshold: float
    tau: float
    refractory_tau: float
    rho: float


# As released, with rho = 100 in the last convolution.
STAGES = (
    Stage(16, 2, 0.27, 2.0, 1.0, 0.20),
    Stage(32, 2, 0.25, 2.0, 1.0, 0.13),
    Stage(64, 2, 0.30, 4.0, 4.0, 0.13),
    Stage(128, 2, 0.40, 4.0, 4.0, 0.25),
    Stage(256, 1, 0.40, 4.0, 4.0, 100.0),
)


def angular_velocity_net(
    *,
    input_shape: tuple[int, int, int] = (180, 240, 2),
    stages: Sequence[Stage] = STAGES,
    outputs: int = 3,
    tau: float = 8.0,
    kernel: str = "truncated",
    rngs: nnx.Rngs,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """Regression network, event frames `[T, B, H, W, 2]` to `[T, B, 3]`, continuous in time.

        [conv3x3 - SRM neurons] * stages - mean over space - linear - postsynaptic potential

    The published network has 392,736 weights and no biases; its frames last 1 ms each and hold 0 or
    1 per pixel and polarity. The output is no neuron: the potential itself is the angular velocity,
    in rad/s. Train it by `losses.distance(outputs, targets, start=50)`.

    Args:
        input_shape: `(H, W, C)` of one frame.
        stages: convolutions and their neurons.
        outputs: number of outputs, 3 axes of rotation.
        tau: time constant of the output's potential, in timesteps.
        kernel: "truncated" as released, or "recurrence", see `nn.SRM`; the two differ by up to
            0.041 in a response, and in fewer than 1 % of spikes.
        rngs: random streams of the weights, uniform within `1 / sqrt(fan in)`.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: memory strategy of the gradient; the membranes of all layers, 334,000 per step,
            dominate it: `memory.Strategy(time=memory.recompute(10))`.

    Raises:
        ValueError: frames too small for the stages, or an unknown kernel.

    Reference:
        Gehrig, Shrestha, Mouritzen, Scaramuzza, "Event-Based Angular Velocity Regression with
        Spiking Networks", ICRA 2020, arXiv:2003.02790.
    """
    size, depth, body = list(input_shape[:2]), input_shape[-1], list[Any]()
    init = nn.synapses.fan_in_uniform
    for number, stage in enumerate(stages, 1):
        size = [(n - 3) // stage.stride + 1 for n in size]
        if min(size) < 1:
            raise ValueError(
                f"frames of {input_shape[0]}x{input_shape[1]} pixels are too small for convolution "
                f"{number}: give fewer stages or larger frames"
            )
        conv = nn.Conv(
            depth, stage.channels, strides=stage.stride, padding="VALID", kernel_init=init,
            rngs=rngs,
        )  # fmt: skip
        body += [conv, _neurons(stage, kernel)]
        depth = stage.channels
    # The response of the output commutes with its linear map, which has 3 outputs of 256 inputs.
    head = nn.Linear(depth, outputs, use_bias=False, kernel_init=init, rngs=rngs)
    body += [nn.GlobalAvgPool(), head, nn.PSP(tau=tau, kernel=kernel)]
    return finish(body, tuple(input_shape), order, memory)


def _neurons(stage: Stage, kernel: str) -> nn.Neuron:
    theta = stage.threshold
    return nn.SRM(
        threshold=theta,
        tau=stage.tau,
        refractory_tau=stage.refractory_tau,
        refractory="exponential",
        kernel=kernel,
        spike=surrogate.exponential(height=stage.rho / theta, width=0.3 * theta),
    )
