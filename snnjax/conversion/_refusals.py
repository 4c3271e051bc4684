"""Refusals of operations that no spiking layer has, in the words of the user's program."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flax
import jax

__all__ = ["describe"]

_ACTIVATION = "use jax.nn.relu or jnp.clip(x, 0, c), and train again"
_NORM = "its statistics depend on the example: use BatchNorm, and train again"
_POOL = "rates have a mean and no maximum: use avg_pool, and train again"
_PRODUCT = "a spiking network has no product of two rates: use linear and convolutional layers"
_RETURN = "return the logits, and leave this to the loss"
_LOOP = "build the blocks in a Python loop"

# Function or class, as the traceback names it, to words and cure; outer ones come first, since
# attention calls softmax and a gated cell sigmoid.
_NAMED = {
    "MultiHeadAttention": ("attention", _PRODUCT),
    "MultiHeadDotProductAttention": ("attention", _PRODUCT),
    "dot_product_attention": ("attention", _PRODUCT),
    "LSTMCell": ("a recurrent cell", "use feed-forward layers"),
    "OptimizedLSTMCell": ("a recurrent cell", "use feed-forward layers"),
    "GRUCell": ("a recurrent cell", "use feed-forward layers"),
    "LayerNorm": ("layer norm", _NORM),
    "GroupNorm": ("group norm", _NORM),
    "InstanceNorm": ("instance norm", _NORM),
    "RMSNorm": ("RMS norm", _NORM),
    "BatchNorm": (
        "batch norm by statistics of the batch",
        "evaluate by running statistics, use_running_average=True",
    ),
    "Dropout": ("dropout", "evaluate without it, deterministic=True"),
    "Embed": ("an embedding", "give its vectors as inputs"),
    "ConvTranspose": ("transposed convolution", "use convolutions without dilation"),
    "max_pool": ("max pooling", _POOL),
    "min_pool": ("min pooling", _POOL),
    "log_softmax": ("log_softmax", _RETURN),
    "softmax": ("softmax", _RETURN),
    **{
        name: (name, _ACTIVATION)
        for name in (
            *("gelu", "silu", "leaky_relu", "elu", "celu", "selu", "mish", "glu", "log_sigmoid"),
            *("hard_silu", "soft_sign", "softplus", "squareplus", "PReLU", "sigmoid", "tanh"),
        )
    },
}
_PRIMITIVES = {
    "reduce_window_max": ("max pooling", _POOL),
    "reduce_window_min": ("min pooling", _POOL),
    "reduce_max": ("a maximum over an axis", _POOL),
    "tanh": ("tanh", _ACTIVATION),
    "logistic": ("sigmoid", _ACTIVATION),
    "exp": ("exp", _ACTIVATION),
    "mul": ("a product of two activations", _PRODUCT),
    "div": ("a quotient of two activations", _PRODUCT),
    "square": ("a square", _PRODUCT),
    "integer_pow": ("a power", _PRODUCT),
    "select_n": ("a choice by jnp.where", _ACTIVATION),
    "gt": ("a comparison", _ACTIVATION),
    "ge": ("a comparison", _ACTIVATION),
    "lt": ("a comparison", _ACTIVATION),
    "le": ("a comparison", _ACTIVATION),
    "concatenate": ("concatenation", "add the paths, and train again"),
    "scan": ("a loop", _LOOP),
    "while": ("a loop", _LOOP),
}
# With a separator: flaxmodels is no part of flax.
_HERE = f"{Path(__file__).parent}{os.sep}"
_LIBRARIES = tuple(f"{Path(str(module.__file__)).parent}{os.sep}" for module in (jax, flax))


def describe(trail: Sequence[Any], *, behind: str, reason: str, cure: str) -> str:
    """Message of a refusal: the operation, its place in the program, and the cure.

    Args:
        trail: equations of the program, each inside the call before it; the last is refused.
        behind: name of the parameter last used before it, or an empty text.
        reason: words for the operation if it has no name of its own.
        cure: cure for it.
    """
    last = trail[-1].primitive.name
    words = (reason, cure) if reason else _PRIMITIVES.get(last, (f"the operation {last}", ""))
    names = {part.lstrip("_") for eqn in trail for part in _functions(eqn)}
    words = next((known for name, known in _NAMED.items() if name in names), words)
    where = ", ".join(filter(None, [_scope(trail), _line(trail), behind and f"behind {behind}"]))
    listed = "conversion.from_flax lists the layers that convert"
    return f"{words[0]} ({where or 'at the inputs'}) does not convert: {words[1] or listed}"


def _functions(eqn: Any) -> Iterator[str]:
    """Names of the functions and classes from which an equation stems."""
    yield str(eqn.params.get("name", ""))
    for frame in _frames(eqn):
        yield from frame.function_name.split(".")


def _frames(eqn: Any) -> Iterator[Any]:
    """Frames of the traced network, innermost first."""
    traceback = eqn.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        # The callers of the conversion are no part of the network.
        if frame.file_name.startswith(_HERE):
            return
        yield frame


def _scope(trail: Sequence[Any]) -> str:
    """Path of the linen module, without the outermost one."""
    return str(trail[0].source_info.name_stack).partition("/")[2]


def _line(trail: Sequence[Any]) -> str:
    """File and line of the user's program."""
    # Outer calls first: JAX traces its own functions once, and keeps the line of their first use.
    for eqn in trail:
        for frame in _frames(eqn):
            if not frame.file_name.startswith(_LIBRARIES):
                return f"{Path(frame.file_name).name}:{frame.line_num}"
    return ""
