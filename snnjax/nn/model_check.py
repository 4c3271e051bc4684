"""Check of a neuron model: gradients, inverse and causality under every memory strategy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import memory
from snnjax.neurons import Model
from snnjax.typing import Array, PyTree, Scan

__all__ = ["check_model"]


def check_model(
    model: Model,
    *,
    shape: tuple[int, ...] = (2, 8),
    timesteps: int = 12,
    currents: Array | None = None,
    state: PyTree = None,
    bound: float = 1e-5,
    tolerance: float = 1e-2,
    compiler_options: Mapping[str, Any] | None = None,
) -> list[str]:
    """Checks a neuron model under all memory strategies and lists its faults.

        outputs     equal those of memory.store bit for bit
        gradients   of params, state and currents agree with those of memory.store
        inverse     recovers states within `tolerance`
        causality   outputs at t have no gradient by currents after t
        spiking     outputs of a spiking model are 0 or 1, and some are 1

    The strategies are `store`, `recompute` with one and with two levels, the model's sequence
    function alone and inside of `recompute`, and `reverse` by the model's inverse, refreshed at
    every step and as rarely as the inverse allows.

    Args:
        model: model of your own, or one of `snnjax.neurons`.
        shape: `(B, ...)`, shape of one timestep of currents.
        timesteps: number of timesteps, T.
        currents: `[T, B, ...]`, large enough to make neurons fire; None draws from a normal
            distribution of mean 0.3 and standard deviation 0.6.
        state: state before the first timestep; None is the state at rest.
        bound: largest relative difference of gradients, for scans without an inverse.
        tolerance: largest error of a rebuilt state relative to its magnitude; gradients of a
            reversing scan may differ by four times as much.
        compiler_options: options of `jax.jit`, as for `memory.check`.

    Returns:
        One sentence per fault; empty if the model passes.

    Example:
        assert not nn.check_model(neurons.Model(my_step, MyParams(decay=0.9), jnp.zeros))
    """
    if currents is None:
        draws = np.random.default_rng(0).normal(0.3, 0.6, (timesteps, *shape))
        currents = jnp.asarray(draws, jnp.float32)
    state = model.initial_state(currents.shape[1:]) if state is None else state
    # Arrays, so that gradients of all parameters are checked.
    params = jax.tree.map(jnp.asarray, model.params)
    arguments = (model, params, state, currents)
    options: dict[str, Any] = {"repeats": 0, "compiler_options": compiler_options}
    reports = memory.check(_scans_without_inverse(model), *arguments, bound=bound, **options)
    if callable(model.inverse):
        reversing = _reversing_scans(model, len(currents))
        # A rebuilt state is not exact under a leak, so its gradients get a wider bound.
        options |= {"bound": 4 * tolerance, "tolerance": tolerance}
        reports += memory.check(reversing, *arguments, **options)
    faults = [f"{one.name}: {fault}" for one in reports for fault in one.faults]
    outputs = memory.store(*arguments)[1]
    if model.spiking and not bool(jnp.all((outputs == 0) | (outputs == 1))):
        faults.append("spiking: an output is neither 0 nor 1; make the model with spiking=False")
    if model.spiking and not bool(jnp.any(outputs == 1)):
        faults.append("spiking: no neuron fired; give currents above the threshold")
    return faults + _causality_faults(*arguments)


def _scans_without_inverse(model: Model) -> dict[str, Scan]:
    scans: dict[str, Scan] = {
        "recompute(1)": memory.recompute(1),
        "recompute(5)": memory.recompute(5),
        "recompute(6, inner=recompute(2))": memory.recompute(6, inner=memory.recompute(2)),
    }
    if model.sequence is not None:
        scans["sequence"] = memory.sequence
        scans["recompute(5, inner=sequence)"] = memory.recompute(5, inner=memory.sequence)
    return scans


def _reversing_scans(model: Model, timesteps: int) -> dict[str, Scan]:
    inverse = model.require_inverse()
    # Beyond `inverse.steps` the rounding error of the inverse is too large by its own statement.
    seldom = min(getattr(inverse, "steps", None) or timesteps, timesteps)
    return {f"reverse(refresh={n})": memory.reverse(inverse, refresh=n) for n in {1, seldom}}


def _causality_faults(model: Model, params: Any, state: Any, currents: Array) -> list[str]:
    """Gradient of early outputs by late currents; a scanned step is causal by construction."""
    if model.sequence is None:
        return []
    # A look-ahead of a time-invariant function crosses any split, so one suffices.
    middle, sequence = len(currents) // 2, model.sequence
    past = lambda xs: jnp.sum(sequence(params, state, xs)[1][:middle])  # noqa: E731
    if bool(jnp.any(jax.jit(jax.grad(past))(currents)[middle:] != 0)):
        return [f"sequence: outputs before timestep {middle} depend on later currents"]
    return []
