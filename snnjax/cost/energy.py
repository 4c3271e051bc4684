"""Energy at 45 nm, the estimate that papers print, and what it leaves out.

    E = 4.6 pJ MAC + 0.9 pJ AC,      AC of a layer = FLOPs_l fr_l T

with FLOPs_l the products of layer l for one example and timestep, zero padding included as
profilers do, and fr_l the share of its inputs that spike. The numbers are those of a 45 nm process
at 0.9 V: an addition of float32 takes 0.9 pJ, a multiplication 3.7 pJ, both together 4.6 pJ.

Five rules, where papers differ:

1. A layer adds (AC) only where its input is binary, 0 or 1 by value. What a residual sum, dropout's
   scaling, an average pool or an event count gives is a number, and the layer multiplies (MAC): all
   of its products, at every timestep.
2. What is computed of a static input counts once for all timesteps. Static is told by value, see
   `cost.Connection.static`.
3. Memory traffic is told apart in bytes and is not in E, though it takes more: a load of 32 bit
   from an 8 kB SRAM takes 5 pJ, more than five additions.
4. Attention counts. Of attention on currents every multiplication is a MAC; products of spikes
   (q, k and v all binary) add where both factors are there.
5. The firing rate and T are always told, and that rates of a few per cent are the break-even
   (`BREAK_EVEN`).

Norms count as folded into the connection before them, which group and layer norms cannot be;
pooling, biases and the neurons' own arithmetic are left out. But for neurons that weigh currents
over time (`nn.PSN`): T products per neuron and timestep, of a sliding one as many as its order, are
no small change, and count by rule 1. Between them and neurons that are left out the estimate does
not decide: each LIF neuron multiplies once or twice per timestep, too.

References: Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, as in
Table 1 of PMC8934428. Yan, Bai, Wong, "Reconsidering the energy efficiency of spiking neural
networks", 2024, arXiv:2409.08290.
"""

from __future__ import annotations

import dataclasses

from snnjax.cost.measure import over_time
from snnjax.cost.tally import Connection, Tally

__all__ = ["AC_PICOJOULES", "BREAK_EVEN", "MAC_PICOJOULES", "Energy", "energy", "millijoules"]

AC_PICOJOULES = 0.9
MAC_PICOJOULES = 4.6

BREAK_EVEN = (
    "with data movement counted, an SNN of T = 5 must fire below 5.7 % to beat a quantised network "
    "of equal precision (arXiv:2409.08290)"
)


@dataclasses.dataclass(frozen=True)
class Energy:
    """The estimate, per example over all timesteps.

    Attributes:
        macs: multiply-accumulates, those of attention and over time included.
        acs: accumulates, those of attention and over time included.
        attention_macs: of them, those of attention.
        attention_acs: of them, those of attention.
        over_time_macs: of them, those of neurons that weigh currents over time.
        over_time_acs: of them, those of neurons that weigh currents over time.
        millijoules: `4.6 pJ macs + 0.9 pJ acs`.
        once_millijoules: every connection once as multiplications, and nothing else: what a network
            of these layers without spikes and time takes.
        rate: spikes per neuron and timestep.
        timesteps: T.
        static: layers that are counted once for all timesteps.
        multiplying: layers whose inputs are not binary.
        parameter_traffic: bytes, each parameter read at every timestep (of columns, once each).
        membrane_traffic: bytes, each membrane read and written by every call.
        activation_traffic: bytes, inputs of connections written and read, spikes at one bit each.
    """

    macs: float
    acs: float
    attention_macs: float
    attention_acs: float
    over_time_macs: float
    over_time_acs: float
    millijoules: float
    once_millijoules: float
    rate: float
    timesteps: int
    static: tuple[str, ...]
    multiplying: tuple[str, ...]
    parameter_traffic: float
    membrane_traffic: float
    activation_traffic: float


def millijoules(macs: float, acs: float) -> float:
    """`4.6 pJ macs + 0.9 pJ acs`, in mJ."""
    return (MAC_PICOJOULES * macs + AC_PICOJOULES * acs) * 1e-9


def energy(tally: Tally) -> Energy:
    """The estimate of a network, from what it did with some examples.

    Args:
        tally: from `cost.tally`.
    """
    pairs = [_operations(layer) for layer in tally.connections.values()]
    apart = {True: [(0.0, 0.0)], False: [(0.0, 0.0)]}
    for name, found in tally.products.items():
        pair = (0.0, found.effective) if found.binary else (found.dense, 0.0)
        apart[over_time(name)].append(pair)
    weighed, attention, own = (
        [sum(column) / tally.examples for column in zip(*found, strict=True)]
        for found in (apart[True], apart[False], [(0.0, 0.0), *pairs])
    )
    macs, acs = (sum(kinds) for kinds in zip(own, attention, weighed, strict=True))
    once = sum(layer.padded / layer.runs for layer in tally.connections.values()) / tally.examples
    return Energy(
        macs=macs,
        acs=acs,
        attention_macs=attention[0],
        attention_acs=attention[1],
        over_time_macs=weighed[0],
        over_time_acs=weighed[1],
        millijoules=millijoules(macs, acs),
        once_millijoules=millijoules(once, 0),
        rate=tally.rate,
        timesteps=tally.timesteps,
        static=tuple(name for name, layer in tally.connections.items() if layer.static),
        multiplying=tuple(name for name, layer in tally.connections.items() if not layer.binary),
        **_traffic(tally),
    )


def _operations(layer: Connection) -> tuple[float, float]:
    """MACs and ACs, summed over examples."""
    times = layer.runs if layer.static else 1
    if layer.binary:
        return 0.0, layer.padded * layer.rate / times
    return layer.padded / times, 0.0


def _traffic(tally: Tally) -> dict[str, float]:
    stateful = sum(layer.outputs for layer in tally.neurons.values() if layer.stateful)
    moved = 4 * stateful / tally.examples or tally.membrane_bytes * tally.timesteps
    activations = sum(
        layer.inputs / (layer.runs if layer.static else 1) * (1 / 8 if layer.binary else 4)
        for layer in tally.connections.values()
    )
    runs = max((layer.runs for layer in tally.connections.values()), default=1)
    return {
        "parameter_traffic": float(tally.parameter_bytes * runs),
        "membrane_traffic": 2.0 * moved,
        "activation_traffic": 2 * activations / tally.examples,
    }
