"""Layers of multi-bit spikes: the sigma-delta coder, and integrators with improved recurrence.

    nn.SigmaDelta()                        codes real inputs, `[T, B, N] -> [T, B, N]`
    nn.Integrator(N, cell="v2", rngs=rngs) gates, integrates and codes, `[T, B, 2N] -> [T, B, N]`

The coder's range is the layer's statistics: it enters with `state.statistics`, moves once per
timestep in training and leaves with `aux.statistics`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx

from snnjax import metrics, neurons
from snnjax.memory import Reverse
from snnjax.nn._checks import check_rngs, check_scan, check_state
from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, replace, same_shape
from snnjax.nn.dropout import Dropout
from snnjax.nn.neuron import run
from snnjax.nn.taps import lazy_taps
from snnjax.ops.arguments import as_floating, check_choice, check_counts, check_flags, check_numbers
from snnjax.typing import Array, Scan, bind

__all__ = ["Integrator", "SigmaDelta"]

Coder = neurons.sigma_delta.Coder


class _Coded(nnx.Module):
    """Part of the layers with a coder: the range as statistics, the scan, the memory strategy."""

    def _start(self, coder: Coder, scan: Scan | None) -> None:
        if not isinstance(coder, Coder):
            raise TypeError(
                f"coder is a neurons.sigma_delta.Coder(bits=6, threshold=3), got {coder!r}"
            )
        check_scan("nn.Integrator", scan)
        self.coder, self.scan = coder, scan
        self.axes: tuple[str, ...] = ()  # see nn.data_parallel.with_data_axes
        model = self._model(training=False)  # raises where options do not fit each other
        if isinstance(scan, Reverse):
            model.require_inverse()

    def _model(self, training: bool) -> neurons.Model:
        raise NotImplementedError

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Applies the strategy over time to the layer's scan.

        Raises:
            ValueError: a reversing strategy.
        """
        scan = request.strategy.time
        if scan is None:
            return Placed(self, role="neurons")
        if isinstance(scan, Reverse):
            self._model(training=False).require_inverse()
        return Placed(replace(self, scan=scan), False, frozenset({"time"}), "neurons")

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest, and a range that was never moved."""
        rest = self._model(training=False).initial_state(shape)
        return State(rest, neurons.sigma_delta.unknown_range())

    def _run(self, inputs: Array, state: State, call: Call, **options: Any) -> tuple[Array, Aux]:
        model = self._model(call.training)
        check_state(model.initial_state, state.neurons, inputs.shape[1:])
        if call.training and call.lengths is not None:
            # Floating, as all parameters of a scan.
            options["lengths"] = call.lengths.astype(state.statistics.count.dtype)
        params = model.params._replace(**state.statistics._asdict(), **options)
        outputs, aux = run(
            model, params, state.neurons, inputs, scan=self.scan, taps=call.taps, spiking=False
        )
        if not call.training:
            return outputs, aux._replace(statistics=state.statistics)
        # The carry has the dtype of the currents, and the statistics keep theirs.
        pairs = zip(aux.state.range, state.statistics, strict=True)
        moved = neurons.sigma_delta.Range(*(new.astype(old.dtype) for new, old in pairs))
        return outputs, aux._replace(statistics=moved)

    def _own_coder(self) -> Coder:
        return dataclasses.replace(self.coder, axes=self.axes)


class SigmaDelta(_Coded):
    """Sigma-delta coder: real inputs become multi-bit spikes with the same sum over time.

        u[t] = v[t-1] + x[t],    y[t] = Q(u[t]),    v[t] = u[t] - y[t]

    Inputs x and outputs y `[T, B, ...]` have one unit. `neurons.sigma_delta` states `Q`, its
    tracked range and the straight-through derivative. While nothing is clipped, the sum of the
    outputs stays within `(h + 1) / g` of that of the inputs.

    Args:
        coder: bits, threshold and momentum, such as `neurons.sigma_delta.Coder(bits=6)`.
        scan: memory strategy over time; None is `memory.store`.

    Raises:
        ValueError: a reversing scan.

    Reference:
        Ponghiran and Roy, "Spiking Neural Networks with Improved Inherent Recurrence Dynamics for
        Sequential Learning", AAAI 2022, arXiv:2109.01905.
    """

    def __init__(self, *, coder: Coder = Coder(), scan: Scan | None = None):  # noqa: B008
        self.name = "sigma_delta"
        self._start(coder, scan)

    def _model(self, training: bool) -> neurons.Model:
        model = neurons.sigma_delta.sigma_delta_model()
        step = bind(neurons.sigma_delta.sigma_delta, coder=self._own_coder(), training=training)
        return dataclasses.replace(model, step=step)

    infer_shape = same_shape

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Codes `[T, B, ...]`."""
        return self._run(as_floating("nn.SigmaDelta", inputs), state, call)


class Integrator(_Coded):
    """A layer of N gated integrators with multi-bit spikes: improved recurrence dynamics.

        "leaky"   i[t] = tau i[t-1] + m x[t]                        tau learned, per neuron
        "v1"      i[t] = F i[t-1] + (1 - F) m C                     no feedback
        "v2"      as v1, with F = sigmoid(f + y[t-1] U_f), C = relu(c + y[t-1] U_c)

        u[t] = v[t-1] + i[t],    y[t] = Q(u[t]),    v[t] = u[t] - y[t]

    Inputs `[T, B, 2N]` are f then c, as `nn.Linear(inputs, 2 * N, use_bias=False)` and a norm give
    them; `[T, B, N]` for "leaky". Outputs y `[T, B, N]` are signed multi-bit spikes.

    Multiplications: tap `"operations"` counts those of the feedback, one per nonzero spike and
    weight, 2N per spike; `"products"` counts 2N of the gate per step (N for "leaky"). The synapses
    in front of the layer count their own. The released code counts twice `2 N nnz(inputs)` per
    layer and leaves out the feedback of all layers but the first; here each is counted once.

    Args:
        size: N, number of neurons.
        cell: "leaky", "v1" or "v2".
        coder: bits, threshold and momentum of the coder.
        dropout: rate of the mask m, which is equal at all timesteps; the paper uses 0.2.
        parallel: compute the currents of "leaky" or "v1" at all timesteps by an associative scan;
            equal to the scanned cell up to rounding. A strategy over time scans the cell instead,
            except `memory.recompute(every, inner=memory.sequence)`.
        scan: memory strategy over time; None is `memory.store`, or the parallel scan.
        gain: initial scale of the feedback, orthogonal; sqrt(2) as published. The candidate has no
            bound, so that a large feedback may grow from step to step, and the range with it.
        rngs: random streams of the feedback.

    Raises:
        ValueError: an unknown cell; a parallel "v2"; a reversing scan; inputs of another width (on
            a call), or a training call with dropout and without a key.

    Reference:
        Ponghiran and Roy, "Spiking Neural Networks with Improved Inherent Recurrence Dynamics for
        Sequential Learning", AAAI 2022, arXiv:2109.01905.
    """

    def __init__(
        self,
        size: int,
        *,
        cell: str = "v2",
        coder: Coder = Coder(),  # noqa: B008 (frozen)
        dropout: float = 0.0,
        parallel: bool = False,
        scan: Scan | None = None,
        gain: float = 2**0.5,
        rngs: nnx.Rngs,
    ):
        check_counts("nn.Integrator", size=size)
        check_numbers("nn.Integrator", least=0, gain=gain)
        check_choice("nn.Integrator", choices=neurons.integrator.CELLS, cell=cell)
        check_flags("nn.Integrator", parallel=parallel)
        check_rngs("nn.Integrator", rngs)
        self.size, self.cell, self.parallel = size, cell, parallel
        self.name, self.dropout = f"{cell}_integrator", Dropout(dropout)
        self.weights = _weights(cell, size, gain, rngs)
        self._start(coder, scan)

    def _model(self, training: bool) -> neurons.Model:
        weights: Any = 0.0 if self.weights is None else self.weights[...]
        return neurons.integrator.integrator_model(
            weights=weights,
            cell=self.cell,
            coder=self._own_coder(),
            parallel=self.parallel,
            training=training,
        )

    def infer_shape(self, state: State, shape: tuple[int, ...]) -> tuple[int, ...]:
        """`(B, N)`."""
        del state
        return (*shape[:-1], self.size)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Maps currents `[T, B, 2N]`, or `[T, B, N]` for "leaky", to spikes `[T, B, N]`."""
        inputs = as_floating("nn.Integrator", inputs)
        width = self.size if self.cell == "leaky" else 2 * self.size
        if inputs.ndim != 3 or inputs.shape[-1] != width:
            raise ValueError(
                f"this integrator of {self.size} neurons takes currents [T, B, {width}], got "
                f"{list(inputs.shape)}: put nn.Linear({inputs.shape[-1]}, {width}, rngs=rngs) in "
                "front of it"
            )
        before = state.neurons.outputs
        outputs, aux = self._run(inputs, state, call, mask=self._mask(inputs, call))
        taps = lazy_taps(
            call.taps,
            products=lambda: self._products(inputs.shape[:2]),
            # Synapses count the spikes they receive, those of the previous timestep.
            **self._feedback_taps(before, outputs),
        )
        kinds = aux.taps.get("", {}) | taps.get("", {})
        return outputs, aux._replace(taps={"": kinds} if kinds else {})

    def _mask(self, inputs: Array, call: Call) -> Any:
        if not call.training or not self.dropout.rate:
            return 1.0
        # The layer of dropout on ones: its mask, scaled, and equal on any number of devices.
        ones = jnp.ones((1, inputs.shape[1], self.size), jnp.float32)
        return self.dropout(ones, State(), call)[0][0]

    def _feedback_taps(self, before: Array, outputs: Array) -> dict[str, Any]:
        if self.cell != "v2" or self.weights is None:
            return {}
        weights = self.weights[...]

        def operations() -> metrics.operations.Operations:
            fed_back = jnp.concatenate([before[None].astype(outputs.dtype), outputs[:-1]])
            return metrics.operations.synaptic_operations(fed_back, weights)

        return {"operations": operations}

    def _products(self, rows: tuple[int, ...]) -> metrics.operations.Products:
        number = self.size if self.cell == "leaky" else 2 * self.size
        return metrics.operations.multiplications(number, rows)


def _weights(cell: str, size: int, gain: float, rngs: nnx.Rngs) -> nnx.Param | None:
    if cell == "v1":
        return None
    if cell == "leaky":
        # The released code starts without a leak.
        return nnx.Param(jnp.ones(size, jnp.float32))
    # Both halves at once, as the released layer of 2N rows: apart they would be sqrt(2) larger.
    draw = nnx.initializers.orthogonal(gain)
    return nnx.Param(draw(rngs.params(), (size, 2 * size), jnp.float32))
