"""The hand-written gradient of a convolution has autodiff's numbers, under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from snnjax.ops import convolution as convolution_module
from snnjax.ops.convolution import convolution
from tests.compare import assert_close, assert_equal


def plain(inputs, kernel, *, strides=1, padding="SAME", groups=1):
    """The twin that autodiff differentiates."""
    d = inputs.ndim - 2
    space = "HW"[-d:]
    return lax.conv_general_dilated(
        inputs,
        kernel,
        (strides,) * d if isinstance(strides, int) else strides,
        padding,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=groups,
    )


def operands(size, window, *, images=3, channels=4, features=6, groups=1, dtype=np.float64):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(images, *size, channels)).astype(dtype)
    kernel = rng.normal(size=(*window, channels // groups, features)).astype(dtype)
    return jnp.asarray(inputs), jnp.asarray(kernel)


def quickly(f):
    """Jits with the compiler's optimisations off: small shapes, many programs."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})


def pulled(conv, inputs, kernel, **options):
    """Outputs and both gradients, for a cotangent that differs at every output."""

    def run(inputs, kernel):
        outputs, pullback = jax.vjp(lambda x, k: conv(x, k, **options), inputs, kernel)
        cotangent = jnp.sin(jnp.arange(outputs.size)).reshape(outputs.shape)
        return outputs, pullback(cotangent.astype(outputs.dtype))

    return quickly(run)(inputs, kernel)


def check(inputs, kernel, bound=1e-12, **options):
    ours, autodiff = (pulled(conv, inputs, kernel, **options) for conv in (convolution, plain))
    assert_equal(ours[0], autodiff[0])
    assert_close(ours[1], autodiff[1], bound)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("size", [(6, 7), (9,)])
def test_gradients_equal_autodiff(x64, size, k, stride, padding):
    check(*operands(size, (k,) * len(size)), strides=stride, padding=padding)


@pytest.mark.parametrize(
    ("size", "window", "options"),
    [
        ((7, 6), (3, 2), {"strides": (1, 2), "padding": ((2, 1), (0, 3))}),
        ((7, 6), (3, 3), {"strides": (2, 2), "padding": ((4, 4), (5, 0))}),  # wider than the kernel
        ((7, 8), (3, 3), {"strides": (2, 1), "padding": ((-1, -2), (1, -3))}),  # crops
        ((7, 8), (1, 1), {"strides": (2, 3), "padding": ((1, 2), (-1, 0))}),
        ((8, 7), (2, 1), {"strides": (3, 2), "padding": "SAME"}),  # rows that no window reads
        ((9,), (4,), {"strides": (2,), "padding": ((-2, 3),)}),
        ((6, 6), (6, 6), {"strides": (1, 1), "padding": "VALID"}),  # one output
    ],
)
def test_gradients_equal_autodiff_for_any_padding(x64, size, window, options):
    check(*operands(size, window), **options)


@pytest.mark.parametrize(
    ("channels", "features", "groups"),
    [(6, 6, 6), (6, 12, 6), (6, 9, 3), (40, 20, 20)],
    ids=["depthwise", "multiplied", "split", "grouped"],
)
@pytest.mark.parametrize(("window", "stride"), [((3, 3), 1), ((3, 2), 2), ((1, 1), 2), ((4,), 3)])
def test_gradients_of_groups_equal_autodiff(x64, window, channels, features, groups, stride):
    size = (5, 6)[: len(window)]
    shapes = {"channels": channels, "features": features, "groups": groups}
    check(*operands(size, window, images=2, **shapes), strides=stride, groups=groups)


@pytest.mark.parametrize(
    ("dtype", "bound"), [(jnp.float32, 2e-6), (jnp.bfloat16, 2e-2), (jnp.float16, 2e-3)]
)
@pytest.mark.parametrize(("window", "groups"), [((3, 3), 1), ((1, 1), 1), ((3, 3), 4), ((3, 3), 2)])
def test_dtypes(window, groups, dtype, bound):
    inputs, kernel = (
        a.astype(dtype)
        for a in operands((6, 5), window, features=4, groups=groups, dtype=np.float32)
    )
    exact = pulled(plain, *(a.astype(jnp.float32) for a in (inputs, kernel)), groups=groups)
    ours = pulled(convolution, inputs, kernel, groups=groups)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(ours))
    assert_close(ours, exact, bound)


def scanned(f):
    def total(inputs, kernel):
        zero = jnp.zeros((), inputs.dtype)
        return lax.scan(lambda c, x: (c + f(x, kernel), None), zero, jnp.stack([inputs] * 2))[0]

    return total


TRANSFORMS = {
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "scan": scanned,
}


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transformations(x64, transform, groups):
    inputs, kernel = operands((5, 4), (3, 3), groups=groups, features=4)

    def gradient(conv):
        f = TRANSFORMS[transform](lambda x, k: jnp.sin(conv(x, k, strides=2, groups=groups)).sum())
        return quickly(jax.grad(f, (0, 1)))(inputs, kernel)

    assert_close(gradient(convolution), gradient(plain), 1e-12)


def test_eager_calls_trace_their_gradient_once(monkeypatch):
    traced = []
    form = convolution_module.input_gradient
    monkeypatch.setattr(
        convolution_module, "input_gradient", lambda *a: traced.append(a) or form(*a)
    )
    inputs, kernel = operands((5, 11), (3, 3), dtype=np.float32)
    gradient = jax.grad(lambda x, k: convolution(x, k).sum(), (0, 1))
    assert_equal(gradient(inputs, kernel), gradient(inputs, kernel))
    assert len(traced) == 1


@pytest.mark.parametrize(
    ("axes", "window", "groups"),
    [
        ((0, 0), (3, 3), 1),
        ((0, None), (3, 3), 1),
        ((None, 0), (3, 3), 1),
        ((0, None), (3,), 1),
        ((0, 0), (1, 1), 1),
        ((0, None), (3, 2), 2),
        ((0, 0), (2, 3), 4),
    ],
)
def test_vmap_and_grad_in_either_order(x64, axes, window, groups):
    inputs, kernel = operands((5, 4)[: len(window)], window, groups=groups, features=4)
    if axes[0] is not None:
        inputs = jnp.stack([inputs, inputs[::-1] * 2])
    if axes[1] is not None:
        kernel = jnp.stack([kernel, kernel * 3 - 1])

    def both(conv):
        def loss(x, k):
            return jnp.sin(conv(x, k, strides=2, groups=groups)).sum()

        each = jax.vmap(jax.grad(loss, (0, 1)), axes)
        whole = jax.grad(lambda x, k: jax.vmap(loss, axes)(x, k).sum(), (0, 1))
        return quickly(lambda *a: (each(*a), whole(*a)))(inputs, kernel)

    assert_close(both(convolution), both(plain), 1e-12)


@pytest.mark.parametrize("groups", [1, 4])
def test_one_operand_alone_and_second_order(x64, groups):
    inputs, kernel = operands((5, 4), (3, 3), groups=groups, features=4)

    def results(conv):
        def loss(x, k):
            return jnp.sin(conv(x, k, groups=groups)).sum()

        norm = lambda x, k: (jax.grad(loss)(x, k) ** 2).sum()  # noqa: E731
        both = jax.jit(lambda *a: (*jax.grad(loss, (0, 1))(*a), jax.grad(norm, 1)(*a)))
        return both(inputs, kernel)

    assert_close(results(convolution), results(plain), 1e-11)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit, AxisType.Manual])
def test_meshes(x64, monkeypatch, kind, groups):
    """Images sharded over a mesh, with a sum over blocks of them that is traced within it."""
    monkeypatch.setattr(convolution_module, "_BLOCK", 1)
    devices, manual = jax.devices()[:2], kind == AxisType.Manual
    assert len(devices) == 2
    axis_types = (AxisType.Auto if manual else kind,)
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=axis_types, devices=devices)
    inputs, kernel = operands((5, 3), (3, 3), images=16, groups=groups, features=4)

    def loss(inputs, kernel):
        return jnp.sin(convolution(inputs, kernel, groups=groups)).sum()

    def mapped(inputs, kernel):
        return lax.psum(loss(inputs, kernel), "data")

    specs = (P("data"), P())
    whole = jax.shard_map(mapped, mesh=mesh, in_specs=specs, out_specs=P()) if manual else loss
    with jax.set_mesh(mesh):
        placed = jax.device_put((inputs, kernel), tuple(NamedSharding(mesh, s) for s in specs))
        sharded = quickly(jax.grad(whole, (0, 1)))(*placed)
    assert_close(sharded, quickly(jax.grad(loss, (0, 1)))(inputs, kernel), 1e-12)


X, K = (3, 8, 8, 4), (3, 3, 4, 6)


@pytest.mark.parametrize(
    ("inputs", "kernel", "options", "cure"),
    [
        ((2, 3, 8, 8, 4), K, {}, "fold time"),
        ((8, 4), (4, 6), {}, "fold time"),
        (X, (3, 4, 6), {}, "kernel of 4 axes"),
        (X, (3, 3, 4, 0), {}, "at least 1"),
        (X, K, {"groups": 3}, "common divisor"),
        (X, (3, 3, 2, 5), {"groups": 2}, "common divisor"),
        (X, K, {"groups": 0}, "common divisor"),
        (X, (3, 3, 3, 6), {}, "axis -2 is channels / groups"),
        (X, K, {"groups": 2}, "axis -2 is channels / groups"),
        (X, K, {"strides": (1, 2, 1)}, "one for each of the 2"),
        (X, K, {"strides": 0}, "positive"),
        (X, K, {"padding": "FULL"}, '"SAME", "VALID"'),
        (X, K, {"padding": ((1, 1),)}, "each of the 2"),
        (X, K, {"padding": ((1, 1, 1), (1, 1))}, "one \\(low, high\\)"),
        ((3, 2, 2, 4), K, {"padding": "VALID"}, "smaller kernel"),
    ],
)
def test_errors_name_the_cure(inputs, kernel, options, cure):
    with pytest.raises(ValueError, match=cure):
        convolution(jnp.zeros(inputs), jnp.zeros(kernel), **options)


@pytest.mark.parametrize(
    "dtypes", [(jnp.int8, jnp.float32), (jnp.float32, jnp.float16), (jnp.int8, jnp.int8)]
)
def test_spikes_of_another_dtype_are_refused(dtypes):
    with pytest.raises(ValueError, match="astype"):
        convolution(jnp.zeros(X, dtypes[0]), jnp.zeros(K, dtypes[1]))


def test_forward_mode_is_refused():
    x, k = jnp.zeros(X), jnp.zeros(K)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda x: convolution(x, k), (x,), (x,))
