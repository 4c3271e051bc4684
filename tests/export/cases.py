"""Shared by the export tests: a tiny network with every kind of layer, as a source."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import encoding, export, nn, readout
from snnjax.export._manifest import digest, seal

SHAPE, T, K = (4, 4, 1), 3, 5
NAMES = ("ant", "bee", "cat", "dog", "eel")


def layers(rngs, *, width=6, decay=0.5):
    return [
        nn.Conv(1, width, rngs=rngs),
        nn.BatchNorm(width),
        nn.LIF(decay=decay),
        nn.Flatten(),
        nn.Linear(16 * width, K, rngs=rngs),
        nn.LI(),
    ]


def network(*, seed=0, **options):
    key = jax.random.key(seed, impl="rbg")
    make = lambda key: nn.Network(nn.Sequential(*layers(nnx.Rngs(key), **options)), SHAPE)  # noqa: E731
    return jax.jit(make)(key)


def dyadic(tree, *, bits=4):
    """Rounds every array to a coarse grid, on which sums of products are exact in any order."""
    return jax.tree.map(lambda x: jnp.round(x * 2**bits) / 2**bits, tree)


def encode(inputs):
    """Encodes stored bytes as frames on the grid."""
    return encoding.direct(inputs.astype(jnp.float32) / 16, timesteps=T)


def statistics(net):
    """Plausible running statistics after training, of a norm that divides by 1."""
    rest = net.initial_state(1).statistics
    return jax.tree.map(lambda x: x + 0.25 * jnp.arange(len(x)).astype(x.dtype), rest)


def source(net=None, **options):
    net = network() if net is None else net
    given = {
        "name": "tiny",
        "network": net,
        "statistics": statistics(net),
        "encode": encode,
        "readout": readout.rate,
        "example": jax.ShapeDtypeStruct(SHAPE, jnp.uint8),
        "class_names": NAMES,
        "step": 7,
    }
    return export.Source(**{**given, **options})


def inputs(batch, *, seed=1):
    """Examples as stored by a data set."""
    return np.random.default_rng(seed).integers(0, 32, (batch, *SHAPE)).astype(np.uint8)


@functools.cache
def examples(batch):
    return inputs(batch)


@jax.jit
def frames_of(given):
    return encode(given)


def answer(source, given):
    """Logits of the network itself, as in evaluation."""

    @jax.jit
    def run(net, statistics, given):
        start = net.initial_state(len(given), statistics=statistics)
        outputs, _ = net(source.encode(given), start, training=False)
        return source.readout(outputs)

    return run(source.network, source.statistics, given)


def stream(artifact, given):
    """Readout of a streaming artifact's outputs over all frames."""
    state, outputs = artifact.initial_state(len(given)), []
    for frame in frames_of(given):
        state, one = artifact(state, frame)
        outputs.append(one)
    return readout.rate(jnp.stack(outputs))


def edit_manifest(folder, change):
    """Applies a function to the fields of the manifest and makes its digest fit."""
    path = folder / "manifest.json"
    fields = json.loads(path.read_text())
    change(fields)
    fields.pop("digest", None)
    path.write_text(seal(fields))


class Planted:
    """Object whose pickle writes a file when it is loaded."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return open, (self.trace, "w")


def replace_file(folder, name, data):
    """Replaces the bytes of a file and its digest in the manifest."""
    (folder / name).write_bytes(bytes(data))
    edit_manifest(folder, lambda fields: fields["files"].update({name: digest(bytes(data))}))
