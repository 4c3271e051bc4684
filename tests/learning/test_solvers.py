"""Solvers of `beta = J^T beta + g`: the exact solution, honest residuals, ternary spikes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax.learning import solvers
from snnjax.typing import bind

N = 40
EXACT = {
    "neumann": solvers.neumann(iterations=200),
    "neumann, tolerance": solvers.neumann(iterations=400, tolerance=1e-13),
    "damped": solvers.damped(iterations=400, step=0.7),
    "anderson": solvers.anderson(iterations=60, memory=8),
    "broyden": solvers.broyden(iterations=60, memory=50, tolerance=1e-13),
}


@functools.cache
def system(norm=0.8, seed=0):
    """A Jacobian of that spectral norm, g, and the solution by elimination; float64."""
    rng = np.random.default_rng(seed)
    jacobian = rng.normal(size=(N, N))
    jacobian *= norm / np.linalg.norm(jacobian, 2)
    g = rng.normal(size=N)
    return jacobian, g, np.linalg.solve(np.eye(N) - jacobian.T, g)


def solve(solver, jacobian, g):
    transpose = lambda beta: jax.tree.map(lambda b: jnp.asarray(jacobian).T @ b, beta)  # noqa: E731
    return solver(transpose, jax.tree.map(jnp.asarray, g))


@pytest.mark.fast
@pytest.mark.parametrize("name", EXACT)
def test_solution_equals_elimination(x64, name):
    jacobian, g, expected = system()
    beta, info = solve(EXACT[name], jacobian, g)
    np.testing.assert_allclose(beta, expected, atol=1e-10 * np.abs(expected).max())
    assert info.residual < 1e-10


@pytest.mark.parametrize("name", EXACT)
def test_solution_of_a_tree_and_of_a_zero_gradient(x64, name):
    """Two equations in one tree; without a gradient the solution is 0 and finite."""
    jacobian, g, expected = system()
    beta, _ = solve(EXACT[name], jacobian, {"a": g, "b": 2 * g})
    np.testing.assert_allclose(beta["a"], expected, atol=1e-8)
    np.testing.assert_allclose(beta["b"], 2 * expected, atol=1e-8)
    beta, info = solve(EXACT[name], jacobian, 0 * g)
    assert not np.any(beta)
    assert info.residual == 0


def test_fewer_iterations_at_a_looser_tolerance(x64):
    jacobian, g, _ = system()
    counts = []
    for tolerance in (1e-2, 1e-4, 1e-8):
        _, info = solve(solvers.neumann(iterations=500, tolerance=tolerance), jacobian, g)
        assert info.residual <= tolerance
        counts.append(float(info.iterations))
    assert counts == sorted(set(counts))


def test_methods_with_memory_need_fewer_products(x64):
    """At a contraction of .98 the Neumann series is slow."""
    jacobian, g, _ = system()
    slow = 0.98 * jacobian / np.abs(np.linalg.eigvals(jacobian)).max()
    needed = {
        name: float(solve(maker(iterations=900, tolerance=1e-6), slow, g)[1].iterations)
        for name, maker in (("neumann", solvers.neumann), ("anderson", solvers.anderson))
    }
    assert needed["anderson"] < needed["neumann"] / 2
    quick = solvers.broyden(iterations=200, memory=200, tolerance=1e-6)
    assert float(solve(quick, slow, g)[1].iterations) < needed["neumann"] / 2


def test_a_damped_step_converges_where_the_series_does_not(x64):
    """An eigenvalue of -1.5: the series diverges, half steps converge."""
    jacobian, g = np.diag(np.linspace(-1.5, 0.5, N)), system()[1]
    assert solve(solvers.neumann(iterations=50), jacobian, g)[1].residual > 1e3
    assert solve(solvers.damped(iterations=100, step=0.5), jacobian, g)[1].residual < 1e-6


@pytest.mark.fast
def test_the_published_iter_solves_another_equation(x64):
    """(2 I - J^T)^{-1} g; its residual of the right equation tells."""
    jacobian, g, expected = system()
    beta, info = solve(solvers.published_iter(iterations=200), jacobian, g)
    np.testing.assert_allclose(beta, np.linalg.solve(2 * np.eye(N) - jacobian.T, g), atol=1e-12)
    cosine = beta @ expected / np.linalg.norm(beta) / np.linalg.norm(expected)
    assert 0.9 < cosine < 0.999
    assert 0.4 < np.linalg.norm(beta) / np.linalg.norm(expected) < 0.6
    assert info.residual > 0.3


def test_a_method_of_a_users_own_cannot_claim_to_be_right(x64):
    def wrong(transpose, g):
        return jax.tree.map(lambda leaf: 3 * leaf, g), 0, None

    jacobian, g, _ = system()
    assert solve(solvers.Solver(wrong), jacobian, g)[1].residual > 1


@pytest.mark.fast
def test_equal_solvers_are_equal():
    assert solvers.neumann() == solvers.neumann()
    assert hash(solvers.spiking_ternary()) == hash(solvers.spiking_ternary())
    assert solvers.neumann() != solvers.neumann(iterations=31)
    assert solvers.Solver(bind(max)) == solvers.Solver(bind(max))


def ternary(g, **options):
    jacobian, _, _ = system()
    return solve(solvers.spiking_ternary(**options), jacobian, g)


def test_ternary_error_falls_with_the_number_of_timesteps(x64):
    """Slope -1 of the error; specification: .29, .057, .012, .003 at T = 10, 50, 250, 1000."""
    g = 0.1 * system()[1]
    expected = 0.1 * system()[2]
    timesteps, errors = np.array([10, 50, 250, 1000]), []
    for steps in timesteps:
        beta, _ = ternary(g, timesteps=int(steps))
        errors.append(np.linalg.norm(beta - expected) / np.linalg.norm(expected))
    slope = np.polyfit(np.log(timesteps), np.log(errors), 1)[0]
    assert abs(slope + 1) < 0.1, errors
    assert errors[-1] < 0.006


def test_ternary_dead_zone(x64):
    """Gradients too small for a spike give exactly nothing."""
    beta, info = ternary(0.001 * system()[1], timesteps=50)
    assert not np.any(beta)
    assert not np.any(info.rates)
    beta, _ = ternary(0.01 * system()[1], timesteps=500)
    expected = system()[2]
    assert beta @ expected / np.linalg.norm(beta) / np.linalg.norm(expected) > 0.99


@pytest.mark.fast
def test_ternary_solution_is_homogeneous(x64):
    """g, threshold and rest times c give c times the solution; so does the factor `scale`."""
    g = 0.1 * system()[1]
    beta, info = ternary(g, timesteps=60)
    larger, _ = ternary(4 * g, timesteps=60, threshold=2.0, rest=-2.0)
    np.testing.assert_array_equal(larger, 4 * beta)
    scaled, scaled_info = ternary(g / 4, timesteps=60, scale=4.0)
    np.testing.assert_array_equal(scaled, beta / 4)
    np.testing.assert_array_equal(scaled_info.rates, info.rates)


def test_ternary_solution_saturates(x64):
    """No rate above one spike per timestep: |beta| <= threshold - rest."""
    g = 0.3 * system()[1]
    expected = 0.3 * system()[2]
    narrow, _ = ternary(g, timesteps=1000, rest=0.0)
    wide, _ = ternary(g, timesteps=1000)
    assert np.abs(narrow).max() == 0.5
    assert np.abs(wide).max() <= 1
    errors = [np.linalg.norm(b - expected) / np.linalg.norm(expected) for b in (narrow, wide)]
    assert errors[0] > 0.1 > 10 * errors[1]


def test_ternary_leak_leaves_an_error(x64):
    g, expected = 0.1 * system()[1], 0.1 * system()[2]
    errors = []
    for steps in (500, 2000):
        beta, _ = ternary(g, timesteps=steps, decay=0.95)
        errors.append(np.linalg.norm(beta - expected) / np.linalg.norm(expected))
    assert errors[1] > 0.7 * errors[0] > 0.02


@pytest.mark.fast
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: solvers.neumann(iterations=0), "at least one iteration"),
        (lambda: solvers.damped(step=1.5), r"\(0, 1\]"),
        (lambda: solvers.anderson(memory=0), "at least one iterate"),
        (lambda: solvers.broyden(tolerance=-1), "tolerance of 0 or more"),
        (lambda: solvers.spiking_ternary(threshold=-1), "threshold > 0"),
    ],
)
def test_wrong_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
