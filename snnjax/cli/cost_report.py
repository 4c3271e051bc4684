"""What `snnjax cost` says to people."""

from __future__ import annotations

from typing import Any

from snnjax import cost
from snnjax.cli.screen import Screen
from snnjax.cli.sizes import spell_size

__all__ = ["header", "legend", "row_line", "say_report"]

_WIDTHS = (21, 4, 3, 11, 6, 9, 9, 9, 9, 9, 9, 9, 8)
_TITLES = (
    *("model", "T", "B", "parameters", "rate"),
    *("eff. MAC", "eff. AC", "dense"),
    *("MAC", "AC", "mJ", "traffic", "seconds"),
)


def legend() -> str:
    """What the columns of the table are."""
    return (
        "Freshly drawn networks, normalised by their own batch, on drawn inputs; per example over "
        "T timesteps.\nrate: spikes per neuron and timestep. Two counts that do not mix: "
        "NeuroBench's (eff. MAC, eff. AC, dense:\nnothing for zeros and padding) and the 45 nm "
        "estimate (MAC, AC, mJ: all products of real inputs, products\ntimes the rate of spikes "
        "coming in, attention included). traffic: bytes of weights, membranes and\nactivations, "
        "not in mJ."
    )


def header() -> str:
    """Titles of the table."""
    return _columns(_TITLES)


def row_line(row: dict[str, Any]) -> str:
    """One model; slim ones are marked."""
    figures, estimate = row["neurobench"], row["energy"]
    traffic = sum(estimate[f"{kind}_traffic"] for kind in ("parameter", "membrane", "activation"))
    return _columns(
        (
            *(row["model"] + "*" * bool(row["slim"]), row["timesteps"], row["batch"]),
            *(f"{figures['parameters']:,}", f"{row['firing_rate']:.3f}"),
            *map(spell, (figures["effective_macs"], figures["effective_acs"], figures["dense"])),
            *(spell(estimate["macs"]), spell(estimate["acs"])),
            *(f"{estimate['millijoules']:.2g}", spell_size(traffic), f"{row['seconds']:.1f}"),
        )
    )


def say_report(
    figures: cost.NeuroBench,
    estimate: cost.Energy,
    layers: list[dict[str, Any]],
    products: dict[str, list[dict[str, Any]]],
    uncounted: list[str],
    screen: Screen,
) -> None:
    """Both reports and the table of layers."""
    for line in (
        *_layer_lines(layers, products),
        *_neurobench_lines(figures),
        *_energy_lines(estimate),
    ):
        screen.say(line)
    if uncounted:
        screen.say(
            f"not counted, since they do not tell their operations: {', '.join(uncounted)}. Give "
            "their modules a method operations(inputs), see nn.Fold"
        )


def spell(number: float) -> str:
    """A count in thousands, millions, billions."""
    for unit in ("", "k", "M", "G"):
        if abs(number) < 1000:
            return f"{number:.4g}{unit}"
        number /= 1000
    return f"{number:.4g}T"


def _layer_lines(layers: list[dict[str, Any]], products: dict[str, list]) -> list[str]:
    rows = [*layers, *(row for kind in products.values() for row in kind)]
    width = max((len(row["name"]) for row in rows), default=0)
    lines = [f"{'connection':<{width}}  runs  kind  inputs    effective       dense"]
    for layer in layers:
        kind = f"{layer['kind']}{' once' if layer['static'] else ''}"
        lines.append(
            f"{layer['name']:<{width}}  {layer['runs']:>4}  {kind:<8}  {layer['rate']:>5.3f}  "
            f"{spell(layer['effective']):>9}  {spell(layer['dense']):>9}"
        )
    lines += [
        f"{row['name']:<{width}}  {kind.replace('_', ' ') + ', ' + row['kind']:<20}"
        f"{spell(row['effective']):>9}  {spell(row['dense']):>9}"
        for kind, found in products.items()
        for row in found
    ]
    return lines


def _neurobench_lines(figures: cost.NeuroBench) -> list[str]:
    sparsity = figures.connection_sparsity
    neurons = "not defined for these neurons"
    if figures.neuron_operations is not None:
        neurons = f"{spell(figures.neuron_operations)} of {spell(figures.neuron_dense or 0)}"
    updates = figures.membrane_updates
    return [
        "NeuroBench's counts, per example:",
        f"  footprint {spell_size(figures.footprint)}, {figures.parameters:,} parameters",
        f"  sparsity of connections {'-' if sparsity is None else f'{sparsity:.4f}'}, of "
        f"activations {figures.activation_sparsity:.4f}",
        f"  synaptic operations: effective MACs {figures.effective_macs:,.1f}, effective ACs "
        f"{figures.effective_acs:,.1f}, dense {figures.dense:,.1f}",
        f"  membrane updates {'not defined here' if updates is None else f'{updates:,.1f}'}; "
        f"neuron operations {neurons}",
    ]


def _energy_lines(estimate: cost.Energy) -> list[str]:
    traffic = (estimate.parameter_traffic, estimate.membrane_traffic, estimate.activation_traffic)
    weights, membranes, activations = map(spell_size, traffic)
    apart = {
        "attention": (estimate.attention_macs, estimate.attention_acs),
        "neurons over time": (estimate.over_time_macs, estimate.over_time_acs),
    }
    return [
        "Energy at 45 nm, an estimate, per example (norms folded into connections):",
        f"  4.6 pJ x {spell(estimate.macs)} MAC + 0.9 pJ x {spell(estimate.acs)} AC = "
        f"{estimate.millijoules:.4g} mJ"
        + "".join(
            f", of which {kind} {spell(macs)} MAC and {spell(acs)} AC"
            for kind, (macs, acs) in apart.items()
            if macs or acs
        ),
        f"  its connections once as multiplications: {estimate.once_millijoules:.4g} mJ",
        f"  counted once for all timesteps, their inputs being static: "
        f"{', '.join(estimate.static) or 'none'}",
        f"  memory traffic, not in it: weights {weights}, membranes {membranes}, activations "
        f"{activations}",
        f"  firing rate {estimate.rate:.4f} spikes per neuron and timestep, T = "
        f"{estimate.timesteps}; {cost.BREAK_EVEN}",
    ]


def _columns(cells: tuple[Any, ...]) -> str:
    first, *others = zip(cells, _WIDTHS, strict=True)
    return "  ".join([f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)])
