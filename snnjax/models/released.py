"""Parameters of released networks, by the authors' names, as parameters of the networks here.

    layers = released.rev_resnet(arrays)                    names of a state dict -> layers in order
    params, statistics = released.convert(network, layers, arrays)
    graphdef, _, constants = nn.split(network)
    network = nn.merge(graphdef, params, constants)
    state = network.initial_state(batch, statistics=statistics)

One function per family lists the authors' layers in the order in which their network runs them; it
reads widths, depths and variants from the names. `convert` pairs them with the layers of a network
here, in the same order, so that one list serves every variant with these layers: a static stem,
another sharing of membranes, another memory strategy. Names and layouts only: arrays may as well be
gradients or running statistics after a training step.

    torch                                   here
    convolution   [D, C, h, w]              [h, w, C, D]
    linear        [D, C], [D, C, 1, 1]      [C, D]
    blocks        one array per block       one array, [depth, ...]
    q, k, v       three arrays              side by side on the last axis
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from flax import nnx

from snnjax import nn
from snnjax.models.t_revsnn import ColumnLevel, TRevSNN
from snnjax.typing import PyTree

__all__ = [
    "Layer",
    "Source",
    "asa",
    "asa_snn_five",
    "convert",
    "efficient_lif_resnet",
    "efficient_lif_vgg",
    "ms_resnet",
    "rev_resnet",
    "rev_sformer",
    "sew_resnet",
    "spike_driven_transformer",
    "spikformer",
    "t_revsnn",
]

Array: TypeAlias = np.ndarray
Names: TypeAlias = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Source:
    """One array here, built from arrays of the authors.

    Attributes:
        parts: authors' names, or sources of their own.
        build: function of the arrays of the parts, to the array here.
    """

    parts: tuple[str | Source, ...]
    build: Callable[..., Array]

    @property
    def names(self) -> tuple[str, ...]:
        """Authors' names of all parts."""
        each = ((p,) if isinstance(p, str) else p.names for p in self.parts)
        return tuple(itertools.chain.from_iterable(each))

    def read(self, arrays: Names) -> Array:
        """The array in the layout of this library."""
        return self.build(
            *(np.asarray(arrays[p]) if isinstance(p, str) else p.read(arrays) for p in self.parts)
        )


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of the authors: sources by parameter name here, and those of its statistics.

    Attributes:
        params: parameter name within the layer here, such as `kernel`, to its source.
        statistics: running mean and variance; empty for layers without them.
    """

    params: dict[str, Source]
    statistics: tuple[Source, ...] = ()


def rev_resnet(names: Iterable[str]) -> list[Layer]:
    """Layers of RevSResNet (mi804/RevSNN), for images or events, for `models.rev_resnet`.

    Args:
        names: names of the state dict.
    """
    names = set(names)
    events = "conv1.0.weight" in names
    layers = [_conv("conv1.0"), _norm("bn1.0")] if events else [_conv("conv1"), _norm("bn1")]
    for stage in _numbers(names, "layer{}.", 1):
        if stage > 1:
            joint = f"ds{stage - 1}.1"
            layers += [_conv(f"{joint}.1"), _norm(f"{joint}.2")]
        block = f"layer{stage}.reversible_blocks."
        layers += _stack(
            [
                [*_branch(f"{block}{i}.f_block"), *_branch(f"{block}{i}.g_block")]
                for i in _numbers(names, block + "{}.", 0)
            ]
        )
    return [*layers, _linear("fc", bias=True)]


def ms_resnet(names: Iterable[str]) -> list[Layer]:
    """Layers of the MS-ResNet baseline (mi804/RevSNN), for `models.ms_resnet`.

    Args:
        names: names of the state dict; a shortcut with neurons is `models.ms_resnet(...,
            spiking_shortcut=True)`.
    """
    names = set(names)
    # The stem of event frames is a sequence, that of images is not.
    events = "conv1.0.weight" in names
    layers = [_conv("conv1.0"), _norm("bn1.0")] if events else [_conv("conv1"), _norm("bn1")]
    for stage in _numbers(names, "layer{}.", 1):
        equal = []
        for i in _numbers(names, f"layer{stage}.{{}}.", 0):
            block, shortcut = f"layer{stage}.{i}", f"layer{stage}.{i}.downsample"
            if f"{shortcut}.1.0.weight" in names:  # with neurons in front
                change = [_conv(f"{shortcut}.1.0"), _norm(f"{shortcut}.1.1")]
            elif f"{shortcut}.0.weight" in names:
                change = [_conv(f"{shortcut}.0"), _norm(f"{shortcut}.1")]
            else:
                equal.append(_branch(block))
                continue
            layers += [*_branch(block), *change]
        layers += _stack(equal)
    return [*layers, _linear("fc", bias=True)]


def rev_sformer(names: Iterable[str]) -> list[Layer]:
    """Layers of RevSFormer (mi804/RevSNN), for `models.rev_sformer`.

    Args:
        names: names of the state dict. The number of heads is no part of it.
    """
    names, layers = set(names), []
    for i in _numbers(names, "patch_embed.block{}_", 0):
        layers += [_conv(f"patch_embed.block{i}_conv"), _norm(f"patch_embed.block{i}_bn")]
    blocks = []
    for i in _numbers(names, "block.reversible_blocks.{}.", 0):
        f, g = (f"block.reversible_blocks.{i}.{branch}_block" for branch in "fg")
        block = [
            _side_by_side([_linear(f"{f}.{part}_conv") for part in "qkv"]),
            _side_by_side([_norm(f"{f}.{part}_bn") for part in "qkv"]),
        ]
        for name in (f"{f}.proj", f"{g}.mlp1", f"{g}.mlp2"):
            block += [_linear(f"{name}_conv", bias=True), _norm(f"{name}_bn")]
        blocks.append(block)
    return [*layers, *_stack(blocks), _linear("head", bias=True)]


def spike_driven_transformer(names: Iterable[str]) -> list[Layer]:
    """Layers of the Spike-driven Transformer, for `models.spike_driven_transformer`.

    The weights `talking_heads` of its blocks, which no forward pass uses, are left out.

    Args:
        names: names of the state dict (BICLab/Spike-Driven-Transformer).
    """
    return _token_layers(set(names))


def spikformer(names: Iterable[str]) -> list[Layer]:
    """Layers of Spikformer, of its file for CIFAR or for ImageNet, for `models.spikformer`.

    The layer norms `norm1` and `norm2` of its blocks, which no forward pass uses, are left out.

    Args:
        names: names of the state dict (ZK-Zhou/spikformer); only the file for CIFAR has biases of
            q, k and v, `models.spikformer(bias=True)`.
    """
    return _token_layers(set(names))


def sew_resnet(names: Iterable[str]) -> list[Layer]:
    """Layers of SEW-ResNet with basic blocks, for `models.sew_resnet`.

    Args:
        names: names of the state dict (fangwei123456/Spike-Element-Wise-ResNet); the joins have the
            same.

    Raises:
        ValueError: blocks with three convolutions, those of depth 50 and more.
    """
    names, layers = set(names), [_conv("conv1"), _norm("bn1")]
    if "layer1.0.conv3.0.weight" in names:
        raise ValueError(
            "layer1.0.conv3 is the third convolution of a block, and models.sew_resnet has basic "
            "blocks of two: give the weights of depth 18 or 34"
        )
    for stage in _numbers(names, "layer{}.", 1):
        equal = []
        for i in _numbers(names, f"layer{stage}.{{}}.", 0):
            block = f"layer{stage}.{i}"
            if f"{block}.downsample.0.0.weight" in names:
                change = f"{block}.downsample.0"
                layers += [*_branch(block), _conv(f"{change}.0"), _norm(f"{change}.1")]
            else:
                equal.append(_branch(block))
        layers += _stack(equal)
    return [*layers, _linear("fc", bias=True)]


def efficient_lif_vgg(names: Iterable[str]) -> list[Layer]:
    """Layers of EfficientLIF-Net's VGG, for `efficient_lif_compat` and `efficient_lif_vgg`.

    Args:
        names: names of the state dict; all kinds of sharing have the same.
    """
    names, layers = set(names), []
    for i in _numbers(names, "conv{}.", 1):
        layers += [_conv(f"conv{i}"), _norm(f"bn{i}")]
    return [*layers, _linear("classifier", bias=True)]


def efficient_lif_resnet(names: Iterable[str]) -> list[Layer]:
    """Layers of EfficientLIF-Net's ResNet, for `efficient_lif_compat` and `efficient_lif_resnet`.

    Args:
        names: names of the state dict; all kinds of sharing have the same.
    """
    names, layers = set(names), [_conv("conv1"), _norm("bn1")]
    for stage in _numbers(names, "layer{}.", 1):
        for i in _numbers(names, f"layer{stage}.{{}}.", 0):
            block = f"layer{stage}.{i}"
            for number in (1, 2):
                layers += [_conv(f"{block}.conv{number}"), _norm(f"{block}.bn{number}")]
            if f"{block}.shortcut.0.weight" in names:
                layers += [_conv(f"{block}.shortcut.0"), _norm(f"{block}.shortcut.1")]
    return [*layers, _linear("fc1", bias=True)]


def asa(names: Iterable[str], *, prefix: str = "") -> Layer:
    """The layer of one ASA module (BICLab/ASA-SNN), for `nn.ASA`.

    Args:
        names: names of the state dict.
        prefix: part of the names in front of those of the module, with its dot.
    """
    # A reduction of 1 is one matrix, another one a sequence of two with a relu between.
    mixers = ["fc"] if f"{prefix}fc.weight" in set(names) else ["fc.0", "fc.2"]
    matrices = {f"mixer/{i}": _weight(f"{prefix}{m}", _transpose) for i, m in enumerate(mixers)}
    scalar = functools.partial(_reshape, shape=())
    scalars = {name: _one(f"{prefix}{name}", scalar) for name in ("alpha", "beta")}
    maps = {"important": "conv1", "remaining": "conv2"}
    kernels = {ours: _weight(f"{prefix}{theirs}", _channels_last) for ours, theirs in maps.items()}
    return Layer({**scalars, **matrices, **kernels})


def asa_snn_five(names: Names, *, space: tuple[int, int] | None = None) -> list[Layer]:
    """Layers of network C of ASA-SNN (BICLab/ASA-SNN), for `models.asa_snn_five`.

    Args:
        names: arrays by the names of the state dict; the shapes tell the size of the last map.
        space: height and width of the last map; None for a square one.

    Raises:
        ValueError: the last map is not square and `space` is None.
    """
    layers, channels = [], 0
    for i in _numbers(names, "ConvAttLIFs.{}.", 0):
        block = f"ConvAttLIFs.{i}.0"
        layers += [_conv(f"{block}.conv.0"), _norm(f"{block}.bn.0")]
        if f"{block}.attn.alpha" in names:
            layers.append(asa(names, prefix=f"{block}.attn."))
        channels = np.shape(names[f"{block}.conv.0.weight"])[0]
    pixels = np.shape(names["FCs.0.1.fc.weight"])[1] // channels
    height, width = space or (math.isqrt(pixels),) * 2
    if height * width != pixels:
        raise ValueError(
            f"the last map has {pixels} pixels, not {height}x{width}: give space=(height, width)"
        )
    # Features are flattened as [C, H, W] there, as [H, W, C] here.
    flat = functools.partial(_flattened, shape=(channels, height, width))
    first = Layer({"kernel": _weight("FCs.0.1.fc", flat), "bias": _one("FCs.0.1.fc.bias")})
    return [*layers, first, _linear("FCs.1.1.fc", bias=True)]


def t_revsnn(names: Iterable[str]) -> list[Layer]:
    """Layers of T-RevSNN for images (BICLab/T-RevSNN), for `models.t_revsnn(heads="deep")`.

    Args:
        names: names of the state dict.
    """
    names = set(names)
    columns = _numbers(names, "subnet{}.", 0)
    levels = _numbers(names, "subnet0.level{}.", 0)
    layers = [_scaled(f"stem.down{i}.0") for i in _numbers(names, "stem.down{}.", 1)]
    for level in levels:  # shared by all columns, listed in the first one
        block = f"subnet0.level{level}.blocks.1"
        layers += [_scaled(f"{block}.pwconv2_reuse"), _conv(f"{block}.dwconv2_reuse", bias=True)]
    for level in levels:
        layers += _column_level(names, f"subnet0.level{level}")
    for level in levels:
        layers += _stack([_column_level(names, f"subnet{t}.level{level}") for t in columns[1:]])
    vector = functools.partial(_reshape, shape=(-1,))
    for level in levels:
        alphas = (_one(f"subnet{t}.alpha{level}", vector) for t in columns)
        layers.append(Layer({"": Source(tuple(alphas), _rows)}))
    for i in _numbers(names, "cls_blocks.{}.", 0):
        head = f"cls_blocks.{i}"
        parts = ("classifier.0", "classifier1.0", "classifier2")
        layers += [_scaled(f"{head}.{part}") for part in parts if f"{head}.{part}.weight" in names]
    return layers


def convert(network: Any, layers: Sequence[Layer], arrays: Names) -> tuple[PyTree, PyTree]:
    """Parameters and running statistics of a network here, from arrays of the authors.

    Args:
        network: an `nn.Network` or a layer; it stays unchanged.
        layers: authors' layers in the order in which the network runs them.
        arrays: authors' arrays by name: weights and statistics, or gradients alone.

    Returns:
        `params`, as `nn.split(network)` returns them, and `statistics`, the argument of
        `network.initial_state`, or None if `arrays` has no running statistics. Arrays keep the
        dtype of the authors' arrays.

    Raises:
        ValueError: other numbers of layers, other parameters, or shapes that do not fit: the
            networks are not the same.
        KeyError: a name is not in `arrays`.
    """
    _, params, _ = nn.split(network)
    flat = dict(nnx.to_flat_state(params))
    nodes, structure = _statistics_nodes(network)
    slots = list(_slots(network, (), jax.tree.unflatten(structure, range(len(nodes)))))
    if len(slots) != len(layers):
        raise ValueError(
            f"the network has {len(slots)} layers with parameters and the authors' {len(layers)}: "
            "build it with the widths, depths and options of the released one"
        )
    values, running = {}, dict[int, Array]()
    for (path, own), layer in zip(slots, layers, strict=True):
        inside = {_text(key[len(path) :]): key for key in flat if key[: len(path)] == path}
        if set(inside) != set(layer.params):
            raise ValueError(
                f"{_text(path)} has {sorted(inside)} and the authors' layer "
                f"{sorted(layer.params)}, from {_first_name(layer)}"
            )
        for name, source in layer.params.items():
            key = inside[name]
            values[key] = flat[key].replace(_fitting(source.read(arrays), flat[key], source))
        if any(name in arrays for source in layer.statistics for name in source.names):
            for place, source in zip(own, layer.statistics, strict=True):
                if all(name in arrays for name in source.names):
                    running[place] = _fitting(source.read(arrays), nodes[place], source)
    if missing := set(flat) - set(values):
        raise ValueError(f"no layer of the authors fits {_text(min(missing, key=str))}")
    statistics = None
    if running:
        # A file may hold the means alone: the rest keeps its initial values.
        filled = [running.get(i, node) for i, node in enumerate(nodes)]
        statistics = jax.tree.unflatten(structure, filled)
    return nnx.from_flat_state(values), statistics


def _statistics_nodes(network: Any) -> tuple[list[Any], Any]:
    """Leaves and structure of the initial statistics; none for a layer without a known input."""
    if not isinstance(network, nn.Network):
        return [], jax.tree.structure(())
    return jax.tree.flatten(network.initial_state(1).statistics)


def _slots(layer: Any, path: tuple, own: Any) -> Iterator[tuple[tuple, tuple[int, ...]]]:
    """Layers with parameters in the order of execution: path, and places of their statistics.

    Args:
        layer: module to walk.
        path: path of the module in the network.
        own: tree of its statistics, with their numbers as leaves.
    """

    def inside(*names: Any, statistics: Any = ()) -> Iterator[tuple[tuple, tuple[int, ...]]]:
        part = functools.reduce(_part, names, layer)
        return _slots(part, (*path, *names), statistics)

    if isinstance(layer, nn.Network):
        yield from inside("body", statistics=own)
    elif isinstance(layer, nn.StaticInput):
        yield from inside("layer", statistics=own)
    elif isinstance(layer, nn.Stacked):
        yield from inside("blocks", statistics=own)
    elif isinstance(layer, nn.Sequential):
        for i, part in enumerate(own or [()] * len(layer.layers)):
            yield from inside("layers", i, statistics=part)
    elif isinstance(layer, nn.Residual | nn.Reversible):
        names = ("branch", "shortcut") if isinstance(layer, nn.Residual) else ("f", "g")
        for name, part in zip(names, own, strict=True):
            yield from inside(name, statistics=part)
    elif isinstance(layer, nn.Shared):
        count = len(layer.synapses)
        for i in range(count):
            yield from inside("synapses", i, statistics=own[i])
            if layer.shortcuts and layer.shortcuts[i] is not None:
                yield from inside("shortcuts", i, statistics=own[count + i])
    elif isinstance(layer, TRevSNN):
        yield from inside("stem")
        yield from inside("columns", statistics=own)
        for i in range(len(layer.heads)):
            yield from inside("heads", i)
    elif isinstance(layer, nn.Columns):
        levels = range(len(layer.shared))
        for name, rows in (("shared", [()] * len(levels)), ("first", own[0]), ("later", own[1])):
            for i, row in enumerate(rows):
                yield from inside(name, i, statistics=row)
        for i in levels:
            yield (*path, "learned", i), ()
    elif isinstance(layer, ColumnLevel):
        yield from inside("down", statistics=own[0])
        if layer.up is not None:
            yield from inside("up", statistics=own[1])
        yield from inside("block1")
        yield from inside("block2")
        yield (*path, "scale"), ()
    elif isinstance(layer, nn.Fold):
        yield from inside("function")
    elif isinstance(layer, nnx.Module) and jax.tree.leaves(nnx.state(layer, nnx.Param)):
        yield path, tuple(jax.tree.leaves(own))


def _part(module: Any, name: Any) -> Any:
    return module[name] if isinstance(name, int) else getattr(module, name)


def _fitting(array: Array, place: Any, source: Source) -> Array:
    if array.shape != tuple(np.shape(place)):
        raise ValueError(
            f"{', '.join(source.names[:2])} has the shape {list(array.shape)} in the layout here, "
            f"and the network {list(np.shape(place))}: build it with the widths of the released one"
        )
    return array


def _text(path: tuple) -> str:
    return "/".join(map(str, path))


def _first_name(layer: Layer) -> str:
    return next(iter(layer.params.values())).names[0]


def _numbers(names: Iterable[str], pattern: str, start: int) -> list[int]:
    """Consecutive numbers from `start` for which a name begins with the pattern."""
    names = list(names)
    there = lambda n: any(name.startswith(pattern.format(n)) for name in names)  # noqa: E731
    return list(itertools.takewhile(there, itertools.count(start)))


def _one(name: str, layout: Callable[[Array], Array] = np.asarray) -> Source:
    return Source((name,), layout)


def _weight(name: str, layout: Callable[[Array], Array]) -> Source:
    return _one(f"{name}.weight", layout)


def _channels_last(kernel: Array) -> Array:
    return np.transpose(kernel, (2, 3, 1, 0))


def _transpose(matrix: Array) -> Array:
    # A 1x1 convolution of tokens is a linear map.
    return matrix.reshape(matrix.shape[:2]).T


def _flattened(matrix: Array, shape: tuple[int, int, int]) -> Array:
    maps = matrix.reshape(len(matrix), *shape)
    return np.transpose(maps, (2, 3, 1, 0)).reshape(-1, len(matrix))


def _reshape(array: Array, shape: tuple[int, ...]) -> Array:
    return array.reshape(shape)


def _conv(name: str, *, bias: bool = False) -> Layer:
    params = {"kernel": _weight(name, _channels_last)}
    return Layer(params | ({"bias": _one(f"{name}.bias")} if bias else {}))


def _linear(name: str, *, bias: bool = False) -> Layer:
    params = {"kernel": _weight(name, _transpose)}
    return Layer(params | ({"bias": _one(f"{name}.bias")} if bias else {}))


def _norm(name: str) -> Layer:
    params = {"scale": _one(f"{name}.weight"), "bias": _one(f"{name}.bias")}
    return Layer(params, (_one(f"{name}.running_mean"), _one(f"{name}.running_var")))


def _token_layers(names: set[str]) -> list[Layer]:
    """Layers of a transformer with the tokenizer and the blocks of Spikformer."""
    layers, blocks = [], []
    numbers = ("", *_numbers(names, "patch_embed.proj_conv{}.", 1))
    for part, number in (*(("proj", n) for n in numbers), ("rpe", "")):
        own = f"patch_embed.{part}"
        layers += [_conv(f"{own}_conv{number}"), _norm(f"{own}_bn{number}")]
    for i in _numbers(names, "block.{}.", 0):
        attention, mlp = f"block.{i}.attn", f"block.{i}.mlp"
        pairs = [
            _map_and_norm(names, f"{own}.{part}")
            for own, parts in ((attention, ("q", "k", "v", "proj")), (mlp, ("fc1", "fc2")))
            for part in parts
        ]
        three = [_side_by_side(row) for row in zip(*pairs[:3], strict=True)]
        blocks.append([*three, *itertools.chain.from_iterable(pairs[3:])])
    return [*layers, *_stack(blocks), _linear("head", bias=True)]


def _map_and_norm(names: set[str], name: str) -> tuple[Layer, Layer]:
    """A linear map of tokens, by either of its names, and its norm."""
    kind = "linear" if f"{name}_linear.weight" in names else "conv"
    linear = _linear(f"{name}_{kind}", bias=f"{name}_{kind}.bias" in names)
    return linear, _norm(f"{name}_bn")


def _scaled(name: str) -> Layer:
    """A convolution with scaled weight standardisation, whose gain is `[D, 1, 1, 1]`."""
    gain = _one(f"{name}.gain", functools.partial(_reshape, shape=(-1,)))
    bias = _one(f"{name}.bias")
    return Layer({"kernel": _weight(name, _channels_last), "scale": gain, "bias": bias})


def _branch(name: str) -> list[Layer]:
    """Two convolutions with their norms, as `conv1` and `conv2`."""
    pairs = ((_conv(f"{name}.conv{i}.0"), _norm(f"{name}.conv{i}.1")) for i in (1, 2))
    return list(itertools.chain.from_iterable(pairs))


def _column_level(names: set[str], name: str) -> list[Layer]:
    """One level of a column: inputs from below and above, two blocks, and gamma."""
    layers = []
    for way in ("down", "up"):
        if f"{name}.fusion.{way}.encode_conv.weight" in names:
            fusion = f"{name}.fusion.{way}.encode"
            layers += [_conv(f"{fusion}_conv"), _norm(f"{fusion}_bn")]
    one, two = f"{name}.blocks.0", f"{name}.blocks.1"
    layers += [_conv(f"{one}.dwconv1", bias=True), _scaled(f"{one}.pwconv1")]
    layers += [_scaled(f"{one}.pwconv2"), _conv(f"{one}.dwconv2", bias=True)]
    layers += [_conv(f"{two}.dwconv1", bias=True), _scaled(f"{two}.pwconv1")]
    gamma = _one(f"{one}.gamma", functools.partial(_reshape, shape=(-1,)))
    return [*layers, Layer({"": gamma})]


def _joined(layers: Sequence[Layer], join: Callable[..., Array]) -> Layer:
    """One layer whose arrays join those of several layers with the same parameters."""
    sources = lambda key: Source(tuple(layer.params[key] for layer in layers), join)  # noqa: E731
    rows = zip(*(layer.statistics for layer in layers), strict=True)
    return Layer(
        {key: sources(key) for key in layers[0].params}, tuple(Source(row, join) for row in rows)
    )


def _side_by_side(layers: Sequence[Layer]) -> Layer:
    return _joined(layers, lambda *arrays: np.concatenate(arrays, -1))


def _stack(blocks: Sequence[Sequence[Layer]]) -> list[Layer]:
    """Equal blocks as one, with arrays `[depth, ...]`."""
    return [_joined(layers, _rows) for layers in zip(*blocks, strict=True)]


def _rows(*arrays: Array) -> Array:
    return np.stack(arrays)
