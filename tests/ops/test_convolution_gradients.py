"""The forms of the gradients: in a loop every convolution has the layout that XLA:CPU runs fast."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from snnjax.ops import convolution as convolution_module
from snnjax.ops.convolution import convolution
from tests.ops.test_convolution import check, operands, plain

CANONICAL = {"b01f_01io->b01f", "b0f_0io->b0f"}


def labels(conv, window, *, channels=8, images=3, vmap=False, dtype=np.float32, **options):
    """Labels of all convolutions in the gradient of a scan over three stacked kernels."""
    size, groups = (8, 8)[: len(window)], options.get("groups", 1)
    shapes = {"images": images, "channels": channels, "features": channels, "groups": groups}
    inputs, kernel = (a.astype(dtype) for a in operands(size, window, dtype=np.float32, **shapes))
    kernels = jnp.stack([kernel] * 3)

    def loss(inputs, kernels):
        def block(x, k):
            # A stride shrinks the carry: what is left is scaled up again.
            y = conv(x, k, **options)
            return jnp.resize(y, x.shape) + x, y.sum()

        return lax.scan(block, inputs, kernels)[1].sum()

    gradient = jax.grad(loss, (0, 1))
    if vmap:
        gradient, inputs = jax.vmap(gradient, (0, None)), jnp.stack([inputs] * 2)
    text = jax.jit(gradient).lower(inputs, kernels).compile().as_text()
    assert " while(" in text
    return re.findall(r" convolution\(.*dim_labels=([\w>-]+)", text)


LOOPS = {
    "3x3": ((3, 3), {}),
    "strided": ((3, 3), {"strides": 2}),
    "valid": ((3, 3), {"padding": "VALID"}),
    "padded": ((3, 3), {"padding": ((4, 4), (5, 3))}),  # more outputs than inputs
    "series-padded": ((5,), {"padding": ((7, 7),)}),
    "one-output": ((8, 8), {"padding": "VALID"}),
    "pointwise": ((1, 1), {}),
    "series": ((3,), {}),
    "series-strided": ((3,), {"strides": 2}),
    "split": ((3, 3), {"groups": 2}),
    "grouped": ((3, 3), {"groups": 20, "channels": 40}),
    "depthwise": ((3, 3), {"groups": 8}),
    "vmapped": ((3, 3), {"vmap": True}),
    "blocks": ((3, 3), {"images": 8, "strides": (2, 1)}),
    "bfloat16": ((3, 3), {"dtype": jnp.bfloat16}),
}


@pytest.mark.fast
@pytest.mark.parametrize("case", LOOPS)
def test_every_convolution_in_a_loop_is_canonical(case, monkeypatch):
    window, options = LOOPS[case]
    if case == "blocks":
        monkeypatch.setattr(convolution_module, "_BLOCK", 1)
    ours = labels(convolution, window, **options)
    # A 1x1 forward is a matrix product, a depthwise convolution is written without one.
    assert ours or case in ("pointwise", "depthwise")
    assert set(ours) <= CANONICAL


@pytest.mark.parametrize("case", ["3x3", "strided", "series", "split", "depthwise"])
def test_autodiff_leaves_other_layouts_in_the_loop(case):
    """The guard above can fail; where this one fails, XLA no longer needs our gradient."""
    window, options = LOOPS[case]
    assert not set(labels(plain, window, **options)) <= CANONICAL


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_other_devices_keep_autodiffs_gradient(platform):
    inputs, kernel = operands((6, 5), (3, 3), dtype=np.float32)

    def text(conv):
        gradient = jax.jit(jax.grad(lambda x, k: conv(x, k, strides=2).sum(), (0, 1)))
        return export.export(gradient, platforms=[platform])(inputs, kernel).mlir_module()

    same = [re.findall(r"dim_numbers = .*?window = {.*?}", text(c)) for c in (convolution, plain)]
    assert (same[0] == same[1]) == (platform != "cpu")
    assert ("optimization_barrier" in text(convolution)) == (platform == "cpu")


def test_a_loop_saves_no_more_than_the_operands():
    inputs, kernel = operands((6, 6), (3, 3), dtype=np.float32)
    residuals = jax.eval_shape(lambda *a: jax.vjp(convolution, *a)[1], inputs, kernel)
    size = sum(leaf.size for leaf in jax.tree.leaves(residuals))
    assert size <= inputs.size + kernel.size


@pytest.mark.parametrize(
    ("window", "groups"), [((3, 3), 1), ((1, 1), 1), ((3, 3), 2), ((3, 3), 6), ((3,), 1)]
)
@pytest.mark.parametrize("images", [12, 13])
def test_blocks_of_images_sum_to_the_whole(x64, monkeypatch, window, groups, images):
    monkeypatch.setattr(convolution_module, "_BLOCK", 1)
    jax.clear_caches()
    shapes = {"images": images, "channels": 6, "groups": groups}
    inputs, kernel = operands((5, 4)[: len(window)], window, **shapes)
    loops = str(jax.make_jaxpr(jax.grad(lambda k: convolution(inputs, k, groups=groups).sum()))(
        kernel
    )).count("scan[")  # fmt: skip
    assert loops == (0 if images == 13 else 2 if groups == 2 else 1)
    check(inputs, kernel, groups=groups)
    jax.clear_caches()
