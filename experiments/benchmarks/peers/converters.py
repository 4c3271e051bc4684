"""Programs of `conversion.py`: conversion and evaluation, by snnjax and by spikingjelly.

A step converts the network of a file and gives the accuracy of the spiking one on its images. Both
measure thresholds, the largest activation of each layer, on the same images; membranes start at
zero, and the outputs are averaged over timesteps. Both therefore compute one function.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import sys

import numpy as np
import workloads


def _parts(path):
    """Arrays of a file, and its layers: kinds in order, with the kernel of each synapse."""
    arrays = np.load(path)
    kernels = iter([arrays[f"kernel{i}"] for i in range(int(arrays["synapses"]))])
    kinds = [str(kind) for kind in arrays["kinds"]]
    layers = [(kind, next(kernels) if kind in ("conv", "linear") else None) for kind in kinds]
    return arrays, layers


def _serve(run, arrays, library):
    """Steps that keep their results, `run() -> logits [N, K]`."""
    found = {}

    def step():
        logits = np.asarray(run(), np.float64)
        places = np.arange(len(logits))
        found["accuracy"] = float(np.mean(logits.argmax(-1) == arrays["labels"]))
        largest = logits.max(-1)
        sums = np.log(np.exp(logits - largest[:, None]).sum(-1)) + largest
        return float(np.mean(sums - logits[places, arrays["labels"]]))

    version = f"{library} {importlib.metadata.version(library)}"
    workloads.serve_steps(step, lambda: found | {"library": version})


def ours(path, *, shift):
    """`calibrate`, `to_spiking`, `mean_outputs`."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from snnjax import conversion, nn

    arrays, layers = _parts(path)

    def made(kind, kernel):
        if kernel is None:
            simple = {"pool": nn.AvgPool, "flatten": nn.Flatten, "relu": conversion.ReLU}
            return simple[kind]()
        options = {"rngs": nnx.Rngs(0), "use_bias": False}
        options["kernel_init"] = lambda key, shape, dtype: jnp.asarray(kernel, dtype)
        sizes = kernel.shape[-2:]
        return nn.Conv(*sizes, **options) if kind == "conv" else nn.Linear(*sizes, **options)

    shape = arrays["images"].shape[1:]
    net = nn.Network(nn.Sequential(*(made(*layer) for layer in layers)), shape)
    batch, timesteps = int(arrays["batch"]), int(arrays["timesteps"])
    images, calibration = (jnp.asarray(arrays[name]) for name in ("images", "calibration"))

    def run():
        thresholds = conversion.calibrate(net, [calibration])
        spiking = conversion.to_spiking(net, thresholds=thresholds, shift=shift)
        logits = [
            conversion.mean_outputs(spiking, images[i : i + batch], timesteps=timesteps)[timesteps]
            for i in range(0, len(images), batch)
        ]
        return jax.block_until_ready(jnp.concatenate(logits))

    _serve(run, arrays, "snnjax")


def spikingjelly(path, *, multiple):
    """`ann2snn` with the largest activations, called step by step or with all timesteps."""
    import torch
    from spikingjelly.activation_based import ann2snn, functional

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    arrays, layers = _parts(path)
    images, calibration = (
        torch.asarray(arrays[name]).permute(0, 3, 1, 2).contiguous()
        for name in ("images", "calibration")
    )
    batch, timesteps = int(arrays["batch"]), int(arrays["timesteps"])
    source = torch.nn.Sequential(
        *(_torch_layer(torch, *layer) for layer in _channels_first(layers))
    )

    def mean(net, x):
        functional.reset_net(net)
        if multiple:
            return net(x.expand(timesteps, *x.shape)).mean(0)
        return sum(net(x) for _ in range(timesteps)) / timesteps

    def run():
        # One batch: over several it takes a moving average of the maxima.
        recipe = ann2snn.RateCodingRecipe(dataloader=[calibration], mode="Max")
        net = ann2snn.Converter(recipe).convert(source)
        if multiple:
            functional.set_step_mode(net, "m")
        with torch.inference_mode():
            return torch.cat([mean(net, x) for x in images.split(batch)]).numpy()

    _serve(run, arrays, "spikingjelly")


def _channels_first(layers):
    """Layers whose first linear kernel reads the features channel by channel."""
    channels, flat = None, False
    for kind, kernel in layers:
        if kind == "conv":
            channels = kernel.shape[-1]
        elif kind == "linear" and flat:
            places = kernel.reshape(-1, channels, kernel.shape[-1])
            kernel, flat = places.transpose(1, 0, 2).reshape(kernel.shape), False
        flat = flat or kind == "flatten"
        yield kind, kernel


def _torch_layer(torch, kind, kernel):
    if kernel is None:
        return {"relu": torch.nn.ReLU, "flatten": torch.nn.Flatten}.get(
            kind, lambda: torch.nn.AvgPool2d(2)
        )()
    *_, inputs, outputs = kernel.shape
    if kind == "conv":
        layer = torch.nn.Conv2d(inputs, outputs, kernel.shape[0], padding="same", bias=False)
        values = kernel.transpose(3, 2, 0, 1)
    else:
        layer, values = torch.nn.Linear(inputs, outputs, bias=False), kernel.T
    layer.weight.data = torch.asarray(np.ascontiguousarray(values))
    return layer


PROGRAMS = {
    "snnjax": functools.partial(ours, shift=None),
    "snnjax, half a threshold": functools.partial(ours, shift="initial"),
    "spikingjelly": functools.partial(spikingjelly, multiple=False),
    "spikingjelly, multi-step": functools.partial(spikingjelly, multiple=True),
}

if __name__ == "__main__":
    workloads.pin(int(sys.argv[3]))
    PROGRAMS[sys.argv[1]](sys.argv[2])
