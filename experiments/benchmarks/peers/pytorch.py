"""Programs of PyTorch peers for `peers.py`: spikingjelly, snntorch, norse."""

from __future__ import annotations

import importlib.metadata
import os

import workloads
from workloads import ALPHA, DECAY, RATE, THRESHOLD, Layer


def _prepared(problem):
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    inputs = torch.asarray(problem.inputs, device=torch.get_default_device())
    if inputs.ndim == 5:
        inputs = inputs.permute(0, 1, 4, 2, 3).contiguous()
    return torch, inputs, torch.asarray(problem.labels, device=inputs.device).long()


def _synapse(torch, kernel, stride=1):
    """Layer of PyTorch with given weights, channels first."""
    values = torch.asarray(kernel, device=torch.get_default_device())
    if kernel.ndim == 2:
        layer = torch.nn.Linear(*kernel.shape, bias=False)
        layer.weight.data = values.T.contiguous()
        return layer
    layer = torch.nn.Conv2d(
        kernel.shape[2], kernel.shape[3], 3, stride=stride, padding=1, bias=False
    )
    layer.weight.data = values.permute(3, 2, 0, 1).contiguous()
    return layer


def _refuse_feedback(problem):
    if problem.recurrent:
        raise SystemExit("this program has no recurrent weights: take snntorch")


def _strides(problem):
    layers = getattr(problem.workload, "layers", None)
    return [s for _, s in layers] if layers else [1] * (len(problem.kernels) - 1)


def _same(x, stride):
    """Padding "SAME" of JAX for a strided 3x3 convolution: none before, one after."""
    import torch

    return torch.nn.functional.pad(x, (0, 1, 0, 1)) if stride == 2 else x


def _trained(torch, module, forward, labels):
    """`step()`: forward, backward and Adam."""
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(forward().mean(0), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _alone(inputs, neurons):
    """`step()` of neurons alone."""
    inputs.requires_grad_(True)

    def step():
        inputs.grad = None
        loss = neurons(inputs).sum()
        loss.backward()
        return loss.item()

    return step


def _looped(torch, cell, state, currents):
    """Spikes of a step `(current, state) -> (spikes, state)` in a loop over time."""
    spikes = []
    for current in currents:
        spike, state = cell(current, state)
        spikes.append(spike)
    return torch.stack(spikes)


def _about(torch, package, **more):
    versions = {p: importlib.metadata.version(p) for p in ("torch", package)}
    device = str(torch.get_default_device())
    known = {"versions": versions, "threads": torch.get_num_threads(), "device": device}
    return lambda: known | more


def spikingjelly(problem, *, channels_last=False):
    """Multi-step mode: synapses and batch norm on `[T B, ...]`, neurons in a loop over time."""
    _refuse_feedback(problem)
    torch, inputs, labels = _prepared(problem)
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    def lif():
        return neuron.LIFNode(
            tau=1 / (1 - DECAY), decay_input=False, v_threshold=THRESHOLD, v_reset=0.0,
            surrogate_function=surrogate.ATan(ALPHA), detach_reset=True, step_mode="m",
        )  # fmt: skip

    about = _about(torch, "spikingjelly")
    if isinstance(problem.workload, Layer):
        node = lif()

        def run(x):
            functional.reset_net(node)
            return node(x)

        return _alone(inputs, run), about
    modules = []
    for kernel, stride in zip(problem.kernels[:-1], _strides(problem), strict=True):
        synapse = _synapse(torch, kernel, stride)
        if kernel.ndim == 4:
            if stride == 2:
                synapse.padding = (0, 0)
                modules.append(layer.SeqToANNContainer(torch.nn.ZeroPad2d((0, 1, 0, 1))))
            norm = torch.nn.BatchNorm2d(kernel.shape[-1])
            modules.append(layer.SeqToANNContainer(synapse, norm))
        else:
            modules.append(layer.SeqToANNContainer(synapse))
        modules.append(lif())
    net = torch.nn.Sequential(*modules)
    last = _synapse(torch, problem.kernels[-1])
    whole = torch.nn.ModuleList([net, last])
    if channels_last:
        whole = whole.to(memory_format=torch.channels_last)
        t, b = inputs.shape[:2]
        inputs = inputs.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        inputs = inputs.unflatten(0, (t, b))

    def forward():
        functional.reset_net(net)
        hidden = net(inputs)
        return last(hidden.mean((-2, -1)) if hidden.ndim == 5 else hidden)

    return _trained(torch, whole, forward, labels), about


def snntorch(problem, *, channels_last=False):
    """A loop over time around the whole network; batch norm per timestep."""
    torch, inputs, labels = _prepared(problem)
    import snntorch as snn

    def lif():
        return snn.Leaky(
            beta=DECAY, threshold=THRESHOLD, reset_mechanism="zero",
            spike_grad=snn.surrogate.atan(alpha=ALPHA),
        )  # fmt: skip

    about = _about(torch, "snntorch")
    if isinstance(problem.workload, Layer):
        node = lif()
        return _alone(inputs, lambda x: _looped(torch, node, node.init_leaky(), x)), about
    strides = _strides(problem)
    pairs = zip(problem.kernels[:-1], strides, strict=True)
    synapses = torch.nn.ModuleList(_synapse(torch, *pair) for pair in pairs)
    norms = [torch.nn.BatchNorm2d(k.shape[-1]) for k in problem.kernels[:-1] if k.ndim == 4]
    for synapse, stride in zip(synapses, strides, strict=True):
        if stride == 2:
            synapse.padding = (0, 0)
    norms, nodes = torch.nn.ModuleList(norms), [lif() for _ in synapses]
    last = _synapse(torch, problem.kernels[-1])
    whole = torch.nn.ModuleList([synapses, norms, last])
    recurrent = [
        torch.nn.Parameter(torch.asarray(r, device=inputs.device)) for r in problem.recurrent
    ]
    for number, matrix in enumerate(recurrent):
        whole.register_parameter(f"recurrent{number}", matrix)
    frames = [frame.contiguous() for frame in inputs]
    if channels_last:
        whole = whole.to(memory_format=torch.channels_last)
        frames = [f.contiguous(memory_format=torch.channels_last) for f in frames]

    def forward():
        membranes = [node.init_leaky() for node in nodes]
        spikes = [None] * len(nodes)
        outputs = []
        for x in frames:
            for i, node in enumerate(nodes):
                x = synapses[i](_same(x, strides[i]))
                if norms:
                    x = norms[i](x)
                if recurrent and spikes[i] is not None:
                    x = x + spikes[i] @ recurrent[i]
                x, membranes[i] = node(x, membranes[i])
                spikes[i] = x
            outputs.append(last(x.mean((-2, -1)) if x.ndim == 4 else x))
        return torch.stack(outputs)

    return _trained(torch, whole, forward, labels), about


def norse(problem):
    """`LIFBoxCell` in a loop over time, with a differentiated reset."""
    _refuse_feedback(problem)
    torch, inputs, labels = _prepared(problem)
    from norse.torch.functional.lif_box import (
        LIFBoxFeedForwardState,
        LIFBoxParameters,
        lif_box_feed_forward_step,
    )

    # dv = dt tau^-1 ((v_leak - v) + i): a half of each, so currents are doubled.
    parameters = LIFBoxParameters(
        tau_mem_inv=torch.tensor(500.0), v_leak=torch.tensor(0.0), v_th=torch.tensor(THRESHOLD),
        v_reset=torch.tensor(0.0), method="super", alpha=torch.tensor(ALPHA),
    )  # fmt: skip
    about = _about(torch, "norse", differs="reset differentiated, its own surrogate")

    def cell(current, state):
        return lif_box_feed_forward_step(2 * current, state, parameters, dt=0.001)

    def rest(like):
        return LIFBoxFeedForwardState(v=torch.zeros_like(like))

    if isinstance(problem.workload, Layer):
        return _alone(inputs, lambda x: _looped(torch, cell, rest(x[0]), x)), about
    synapses = torch.nn.ModuleList(_synapse(torch, kernel) for kernel in problem.kernels)

    def forward():
        states, outputs = [None] * (len(synapses) - 1), []
        for x in inputs:
            for i in range(len(states)):
                x = synapses[i](x)
                x, states[i] = cell(x, rest(x) if states[i] is None else states[i])
            outputs.append(synapses[-1](x))
        return torch.stack(outputs)

    return _trained(torch, synapses, forward, labels), about


def _channels_last(program):
    return lambda problem: program(problem, channels_last=True)


if __name__ == "__main__":
    workloads.serve({
        "spikingjelly": spikingjelly,
        "spikingjelly channels_last": _channels_last(spikingjelly),
        "snntorch": snntorch,
        "snntorch channels_last": _channels_last(snntorch),
        "norse": norse,
    })  # fmt: skip
