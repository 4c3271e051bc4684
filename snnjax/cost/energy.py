"""Energy at 45 nm: the estimate that papers print, with its rules and omissions stated.

    E = 4.6 pJ MAC + 0.9 pJ AC,      AC of a layer = FLOPs_l fr_l T

FLOPs_l are the products of layer l for one example and timestep, including zero padding as
profilers do, and fr_l is the fraction of its inputs that spike. The energies are those of a 45 nm
process at 0.9 V: a float32 addition takes 0.9 pJ, a multiplication 3.7 pJ, both together 4.6 pJ.

Five rules settle where papers differ:

1. A layer accumulates (AC) only if its input is binary, 0 or 1 by value. Residual sums, scaled
   dropout, average pooling and event counts give real numbers, so the layer multiplies (MAC): all
   of its products, at every timestep.
2. Computation on a static input counts once for all timesteps. Static is decided by value, see
   `Connection.static`.
3. Memory traffic is reported separately in bytes and is not in E, although it takes more energy: a
   load of 32 bits from an 8 kB SRAM takes 5 pJ, more than five additions.
4. Attention counts. Every multiplication of attention on currents is a MAC; products of spikes (q,
   k and v all binary) accumulate where both factors are 1.
5. The firing rate and T are always reported, together with the break-even rate of a few per cent
   (`BREAK_EVEN`).

Norms count as folded into the preceding connection, which is impossible for group and layer norms.
Pooling, biases and the arithmetic of neurons are left out, except for neurons that weigh currents
over time (`nn.PSN`): their T products per neuron and timestep (a sliding one has as many as its
order) are substantial and count by rule 1. The estimate therefore does not decide between them and
other neurons: a LIF neuron multiplies once or twice per timestep, too.

References: Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, as in
Table 1 of PMC8934428. Yan, Bai, Wong, "Reconsidering the energy efficiency of spiking neural
networks", 2024, arXiv:2409.08290.
"""

from __future__ import annotations

import dataclasses

from snnjax.cost._tally import Connection, Tally
from snnjax.cost.counting import is_temporal

__all__ = ["AC_PICOJOULES", "BREAK_EVEN", "MAC_PICOJOULES", "Energy", "energy", "millijoules"]

# An addition takes 0.9 pJ and a multiplication 3.7 pJ; a MAC is both.
AC_PICOJOULES = 0.9
MAC_PICOJOULES = 4.6

BREAK_EVEN = (
    "with data movement counted, an SNN of T = 5 must fire below 5.7 % to beat a quantised network "
    "of equal precision (arXiv:2409.08290)"
)


@dataclasses.dataclass(frozen=True)
class Energy:
    """Energy estimate of a network, per example over all timesteps.

    Attributes:
        macs: Multiply-accumulates, including attention and products over time.
        acs: Accumulates, including attention and products over time.
        attention_macs: Multiply-accumulates of attention.
        attention_acs: Accumulates of attention.
        over_time_macs: Multiply-accumulates of neurons that weigh currents over time.
        over_time_acs: Accumulates of neurons that weigh currents over time.
        millijoules: Energy `4.6 pJ macs + 0.9 pJ acs`, mJ.
        once_millijoules: Energy of every connection once, as multiplications, mJ: the estimate for
            a network of these layers without spikes and time.
        rate: Spikes per neuron and timestep.
        timesteps: Number of timesteps, T.
        static: Names of layers that count once for all timesteps.
        multiplying: Names of layers whose inputs are not binary.
        parameter_traffic: Bytes of parameters read, each at every timestep (of columns, once each).
        membrane_traffic: Bytes of membranes read and written, each by every call.
        activation_traffic: Bytes of connection inputs written and read, one bit per spike.
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
    """Energy `4.6 pJ macs + 0.9 pJ acs`, mJ."""
    # 1 pJ is 1e-9 mJ.
    return (MAC_PICOJOULES * macs + AC_PICOJOULES * acs) * 1e-9


def energy(tally: Tally) -> Energy:
    """Estimates the energy of a network from its operations on some examples.

    Args:
        tally: Counts from `cost.measure` or `cost.counting.tally`.
    """
    connections = [_operations(layer) for layer in tally.connections.values()]
    # Pairs (MACs, ACs); the zeros keep the sums defined for networks without such layers.
    products = {True: [(0.0, 0.0)], False: [(0.0, 0.0)]}
    for name, product in tally.products.items():
        # Rule 4: products of spikes accumulate where both factors are 1, all others multiply.
        pair = (0.0, product.effective) if product.binary else (product.dense, 0.0)
        products[is_temporal(name)].append(pair)
    temporal, attention, connection = (
        [sum(column) / tally.examples for column in zip(*pairs, strict=True)]
        for pairs in (products[True], products[False], [(0.0, 0.0), *connections])
    )
    macs, acs = (sum(kinds) for kinds in zip(connection, attention, temporal, strict=True))
    # Without spikes a layer multiplies all its products, including padding, in a single run.
    once = sum(layer.padded / layer.runs for layer in tally.connections.values()) / tally.examples
    return Energy(
        macs=macs,
        acs=acs,
        attention_macs=attention[0],
        attention_acs=attention[1],
        over_time_macs=temporal[0],
        over_time_acs=temporal[1],
        millijoules=millijoules(macs, acs),
        once_millijoules=millijoules(once, 0),
        rate=tally.rate,
        timesteps=tally.timesteps,
        static=tuple(name for name, layer in tally.connections.items() if layer.static),
        multiplying=tuple(name for name, layer in tally.connections.items() if not layer.binary),
        **_traffic(tally),
    )


def _operations(layer: Connection) -> tuple[float, float]:
    """MACs and ACs of a connection, summed over examples."""
    # A static layer was counted at each of its runs; the estimate counts it once (rule 2).
    repeats = layer.runs if layer.static else 1
    if layer.binary:
        # Products of padding are scaled by the rate like the others: FLOPs_l counts them, too.
        return 0.0, layer.padded * layer.rate / repeats
    return layer.padded / repeats, 0.0


def _traffic(tally: Tally) -> dict[str, float]:
    """Bytes of parameters, membranes and activations read and written per example."""
    stateful = sum(layer.outputs for layer in tally.neurons.values() if layer.stateful)
    # One float32 membrane per output; networks that tap no neurons fall back on the state's size.
    membranes = 4 * stateful / tally.examples or tally.membrane_bytes * tally.timesteps
    # A spike takes one bit, a real number four bytes.
    activations = sum(
        layer.inputs / (layer.runs if layer.static else 1) * (1 / 8 if layer.binary else 4)
        for layer in tally.connections.values()
    )
    # Each run reads the parameters again: T times, unless all connections run only once.
    runs = max((layer.runs for layer in tally.connections.values()), default=1)
    return {
        "parameter_traffic": float(tally.parameter_bytes * runs),
        # Factors of 2: each membrane and each input is both written and read.
        "membrane_traffic": 2.0 * membranes,
        "activation_traffic": 2 * activations / tally.examples,
    }
