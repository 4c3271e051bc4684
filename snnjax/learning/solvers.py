"""Solvers of the linear equation of implicit differentiation.

    beta = J^T beta + g

`J` is the Jacobian of the map whose fixed point the rates approach, `g` the gradient of the loss
with respect to the rates. A solver gets the product with the transpose as a function:

    beta, info = solver(transpose, g)          transpose(beta) = J^T beta

Both are pytrees of one structure. `info.residual` is |g + J^T beta - beta| / |g|, computed from the
solution itself, never from the solver's own iteration: a wrong solver shows.

    neumann            beta <- J^T beta + g; no extra memory; needs a contraction
    damped             beta <- beta + s (J^T beta + g - beta)
    anderson           mixes the last iterates; for slow contractions
    broyden            quasi-Newton steps of limited rank
    spiking_ternary    rates of neurons with spikes -1, 0 and 1 (SPIDE)
    published_iter     the `iter` solver of the released IDE code, which solves another equation

A solver of your own is `Solver(method)` with `method(transpose, g) -> (beta, iterations, rates)`.

References: Xiao, Meng, Zhang, Wang, Lin, "Training Feedback Spiking Neural Networks by Implicit
Differentiation on the Equilibrium State", 2021, arXiv:2109.14247; Xiao, Meng, Zhang, Wang, Lin,
"SPIDE: A Purely Spike-based Method for Training Feedback Spiking Neural Networks", 2023,
arXiv:2302.00232; Broyden 1965; Anderson 1965.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from snnjax.learning.rates import total_weight
from snnjax.typing import Array, PyTree, bind

__all__ = [
    "Info",
    "Solver",
    "anderson",
    "broyden",
    "damped",
    "neumann",
    "published_iter",
    "spiking_ternary",
]


class Info(NamedTuple):
    """Quality of a solution, float32.

    Attributes:
        residual: norm of `g + J^T beta - beta` as a fraction of that of `g`, a scalar.
        iterations: products with the transpose, a scalar.
        rates: fraction of the backward neurons that spike per timestep, one number per array of
            `g`; `()` for solvers without spikes.
    """

    residual: Array
    iterations: Array
    rates: Array | tuple[()]

    @classmethod
    def zeros(cls, layers: int) -> Info:
        """An `Info` of zeros, for a spiking solver of that many layers; 0 for other solvers."""
        # One buffer each: a training step donates its state, and no buffer can be donated twice.
        residual, iterations = (jnp.zeros((), jnp.float32) for _ in range(2))
        # An empty array could not be saved in a checkpoint.
        return cls(residual, iterations, jnp.zeros(layers, jnp.float32) if layers else ())


@dataclasses.dataclass(frozen=True)
class Solver:
    """A solver, `(transpose, g) -> (beta, Info)`; equal methods give equal solvers.

    Attributes:
        method: `(transpose, g) -> (beta, iterations, rates)`, with its options bound by
            `typing.bind`; rates are None without spikes.
        timesteps: timesteps of the backward neurons of a method that returns firing rates; 0 for
            methods without spikes.
    """

    method: Callable[..., tuple[PyTree, Any, Array | None]]
    timesteps: int = 0

    def __call__(self, transpose: Callable[[PyTree], PyTree], g: PyTree) -> tuple[PyTree, Info]:
        """Solves `beta = transpose(beta) + g`.

        Args:
            transpose: product with the transposed Jacobian.
            g: gradient with respect to the rates.
        """
        beta, iterations, rates = self.method(transpose, g)
        missing = jax.tree.map(lambda g, j, b: g + j - b, g, transpose(beta), beta)
        size = _norm(g)
        # A gradient of zero has the solution zero, and its residual would be 0 / 0.
        residual = _norm(missing) / jnp.where(size > 0, size, 1)
        return beta, Info(
            residual.astype(jnp.float32),
            jnp.asarray(iterations, jnp.float32),
            () if rates is None else rates.astype(jnp.float32),
        )


def neumann(*, iterations: int = 30, tolerance: float = 0.0) -> Solver:
    """Neumann series, `beta <- J^T beta + g`: the error falls by the contraction at every product.

    Args:
        iterations: largest number of products with the transpose.
        tolerance: relative residual at which to stop; 0 always runs all iterations. On several
            devices with batch norm inside the map it must be 0: devices would stop apart.
    """
    return damped(iterations=iterations, tolerance=tolerance, step=1.0)


def damped(*, iterations: int = 60, tolerance: float = 0.0, step: float = 0.5) -> Solver:
    """Damped iteration, `beta <- beta + step (J^T beta + g - beta)`.

    It also converges where an eigenvalue of J lies below -1, if the step is small enough.

    Args:
        iterations: largest number of products with the transpose.
        tolerance: relative residual at which to stop, see `neumann`.
        step: share of the residual per iteration, in (0, 1].
    """
    _check(iterations, tolerance)
    if not 0 < step <= 1:
        raise ValueError(f"a damped step lies in (0, 1], got {step}")
    return Solver(bind(_damped, iterations=iterations, tolerance=tolerance, step=step))


def anderson(*, iterations: int = 15, memory: int = 5, tolerance: float = 0.0) -> Solver:
    """Anderson mixing of the last iterates, for maps whose contraction is close to 1.

    Args:
        iterations: largest number of products with the transpose.
        memory: number of kept iterates; each costs two copies of `g`.
        tolerance: relative residual at which to stop, see `neumann`.
    """
    _check(iterations, tolerance)
    if memory < 1:
        raise ValueError(f"Anderson mixing keeps at least one iterate, got memory={memory}")
    return Solver(bind(_anderson, iterations=iterations, memory=memory, tolerance=tolerance))


def broyden(*, iterations: int = 30, memory: int = 27, tolerance: float = 1e-7) -> Solver:
    """Broyden's method with an inverse Jacobian of limited rank; returns its best iterate.

    Args:
        iterations: largest number of products with the transpose.
        memory: rank of the inverse; each costs two copies of `g`. Later steps keep the inverse.
        tolerance: relative residual at which to stop, see `neumann`.
    """
    _check(iterations, tolerance)
    return Solver(bind(_broyden, iterations=iterations, memory=memory, tolerance=tolerance))


def spiking_ternary(
    *,
    timesteps: int = 100,
    threshold: float = 0.5,
    rest: float | None = None,
    decay: float = 1.0,
    scale: float = 1.0,
) -> Solver:
    """Rates of ternary neurons that the gradient drives: the backward stage of SPIDE.

        u <- u + g + J^T s,   s = d ([u >= threshold] - [u <= -threshold]),   u <- decay (u - s)
        beta = mean over time of s,           d = threshold - rest

    The arrays of `g` are layers of neurons; within a timestep they fire in reverse order, each on
    the newest spikes. The error falls as 1 / timesteps. Gradients far below the threshold cause no
    spike at all, and |beta| cannot exceed `d / scale`: choose `scale` between the two.

    Args:
        timesteps: number of timesteps of the backward stage.
        threshold: membrane potential of a positive spike; the negative one is its opposite.
        rest: resting potential of the positive neuron; None is `-threshold`.
        decay: fraction of the membrane potential kept per timestep. A leak leaves an error that
            does not fall with the number of timesteps.
        scale: factor of `g`, by which `beta` is divided again. Unlike a scaled loss with a smaller
            learning rate it leaves weight decay as it is.
    """
    _check(timesteps, 0.0)
    rest = -threshold if rest is None else rest
    if not (threshold > 0 and rest < threshold and scale > 0 and 0 < decay <= 1):
        raise ValueError(
            "backward neurons need threshold > 0, rest below it, scale > 0 and decay in (0, 1], "
            f"got {threshold}, {rest}, {scale} and {decay}"
        )
    options = {"threshold": threshold, "amount": threshold - rest, "decay": decay, "scale": scale}
    return Solver(bind(_spiking_ternary, timesteps=timesteps, **options), timesteps)


def published_iter(*, iterations: int = 30) -> Solver:
    """The `iter` solver of the released IDE code, kept to reproduce it; do not train with it.

        beta <- (J^T beta + g) / 2          limit: (2 I - J^T)^{-1} g, not (I - J^T)^{-1} g

    Its gradient is about half as long as the implicit one.

    Args:
        iterations: number of products with the transpose.
    """
    _check(iterations, 0.0)
    return Solver(bind(_published_iter, iterations=iterations))


def _check(iterations: int, tolerance: float) -> None:
    if iterations < 1 or tolerance < 0:
        raise ValueError(
            "a solver needs at least one iteration and a tolerance of 0 or more, got "
            f"{iterations} and {tolerance}"
        )


def _norm(tree: PyTree) -> Array:
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def _iterate(step: Any, carry: Any, residual: Any, size: Array, iterations: int, tolerance: float):
    """Repeats `step(number, carry)`, until the residual of the carry is small enough."""
    if not tolerance:
        return jax.lax.fori_loop(0, iterations, step, carry), iterations

    def unfinished(state):
        number, carry = state
        return (number < iterations) & (_norm(residual(carry)) > tolerance * size)

    def advance(state):
        number, carry = state
        return number + 1, step(number, carry)

    number, carry = jax.lax.while_loop(unfinished, advance, (0, carry))
    return carry, number


def _damped(transpose, g, *, iterations, tolerance, step):
    def advance(number, carry):
        del number
        beta, missing = carry
        beta = jax.tree.map(lambda b, r: b + step * r, beta, missing)
        pulled = transpose(beta)
        return beta, jax.tree.map(lambda g, j, b: g + j - b, g, pulled, beta)

    # From zero the first residual is g itself and costs no product.
    start = jax.tree.map(jnp.zeros_like, g), g
    (beta, missing), count = _iterate(
        advance, start, lambda carry: carry[1], _norm(g), iterations, tolerance
    )
    del missing
    return beta, count, None


def _published_iter(transpose, g, *, iterations):
    def advance(number, beta):
        del number
        return jax.tree.map(lambda j, g: (j + g) / 2, transpose(beta), g)

    return (
        jax.lax.fori_loop(0, iterations, advance, jax.tree.map(jnp.zeros_like, g)),
        iterations,
        None,
    )


def _flat(transpose, g):
    """Residual of a flat beta, the flat g, and the function back to trees."""
    vector, tree = ravel_pytree(g)
    return lambda beta: vector + ravel_pytree(transpose(tree(beta)))[0] - beta, vector, tree


def _anderson(transpose, g, *, iterations, memory, tolerance):
    residual, vector, tree = _flat(transpose, g)

    def advance(number, carry):
        xs, rs, beta, missing = carry
        row = number % memory
        xs, rs = xs.at[row].set(beta), rs.at[row].set(missing)
        # Weights of sum 1 whose mixed residual is smallest; rows not yet filled have weight 0.
        filled = jnp.arange(memory, dtype=jnp.asarray(number).dtype) <= number
        gram = rs @ rs.T
        # Relative to the newest row: residuals of late iterations are tiny.
        gram = gram / gram[row, row] + 1e-10 * jnp.eye(memory, dtype=gram.dtype)
        gram = jnp.where(filled[:, None] & filled, gram, jnp.eye(memory, dtype=gram.dtype))
        weights = jnp.linalg.solve(gram, filled.astype(gram.dtype))
        weights = weights / weights.sum()
        mixed = weights @ (xs + rs)
        # Converged exactly: the Gram matrix has no scale, and the iterate is kept.
        beta = jnp.where(jnp.isfinite(mixed).all(), mixed, beta)
        return xs, rs, beta, residual(beta)

    rows = jnp.zeros((memory, vector.size), vector.dtype)
    start = rows, rows, jnp.zeros_like(vector), vector
    carry, count = _iterate(advance, start, lambda carry: carry[3], _norm(g), iterations, tolerance)
    return tree(carry[2]), count, None


def _broyden(transpose, g, *, iterations, memory, tolerance):
    residual, vector, tree = _flat(transpose, g)

    # The inverse Jacobian of the residual is -1 + sum of u v^T.
    def product(us, vs, x):
        return us.T @ (vs @ x) - x

    def advance(number, carry):
        us, vs, beta, missing, best, least = carry
        change = -product(us, vs, missing)
        after = beta + change
        new = residual(after)
        turned = product(vs, us, change)
        difference = new - missing
        u = (change - product(us, vs, difference)) / (turned @ difference)
        # A rank beyond the memory, or a step of length zero, keeps the inverse as it is.
        keep = jnp.isfinite(u).all() & (number < memory)
        row = jnp.minimum(number, memory - 1)
        us = us.at[row].set(jnp.where(keep, u, us[row]))
        vs = vs.at[row].set(jnp.where(keep, turned, vs[row]))
        better = _norm(new) < least
        best, least = jnp.where(better, after, best), jnp.where(better, _norm(new), least)
        return us, vs, after, new, best, least

    rows = jnp.zeros((memory, vector.size), vector.dtype)
    zero = jnp.zeros_like(vector)
    start = rows, rows, zero, vector, zero, _norm(vector)
    carry, count = _iterate(advance, start, lambda carry: carry[5], _norm(g), iterations, tolerance)
    return tree(carry[4]), count, None


def _spiking_ternary(transpose, g, *, timesteps, threshold, amount, decay, scale):
    leaves, tree = jax.tree.flatten(g)
    driven = [scale * leaf for leaf in leaves]

    def step(number, carry):
        del number
        u, s, total, fired = (list(part) for part in carry)
        for i in reversed(range(len(leaves))):
            # Of the whole product the compiler keeps the part of this layer alone.
            h = u[i] + driven[i] + jax.tree.leaves(transpose(tree.unflatten(s)))[i]
            sign = (h >= threshold).astype(h.dtype) - (h <= -threshold).astype(h.dtype)
            s[i] = amount * sign
            u[i], total[i] = decay * (h - s[i]), decay * total[i] + s[i]
            fired[i] = fired[i] + jnp.abs(sign).mean(dtype=jnp.float32)
        return tuple(u), tuple(s), tuple(total), tuple(fired)

    zeros = tuple(map(jnp.zeros_like, leaves))
    counts = tuple(jnp.zeros((), jnp.float32) for _ in leaves)
    _, _, total, fired = jax.lax.fori_loop(0, timesteps, step, (zeros, zeros, zeros, counts))
    weight = total_weight(timesteps, decay=decay)
    beta = [part / (weight * scale) for part in total]
    return tree.unflatten(beta), timesteps, jnp.stack(fired) / timesteps
