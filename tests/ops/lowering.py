"""Lowering of programs for devices that are not present."""

import inspect
import warnings

import jax

# JAX's own announcements about Triton within Pallas are no concern of these tests.
_TARGETS = ("__gpu$xla.gpu.triton", "triton_kernel_call")
KERNEL = {
    "tpu": "@tpu_custom_call",
    "cuda": "@__gpu$xla.gpu.triton",
    "rocm": "@__gpu$xla.gpu.triton",
}


def lowered(function, platforms, *args) -> str:
    """The StableHLO of a function, by `jax.export`."""
    known = inspect.signature(jax.sharding.AbstractDevice).parameters
    fields = {"device_kind": "NVIDIA H100", "num_cores": None, "platform": "gpu"}
    device = jax.sharding.AbstractDevice(**{k: v for k, v in fields.items() if k in known})
    mesh = jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device)
    checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in _TARGETS]
    with jax.sharding.use_abstract_mesh(mesh), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The Pallas Triton backend", DeprecationWarning)
        made = jax.export.export(jax.jit(function), platforms=platforms, disabled_checks=checks)
        return made(*args).mlir_module()
