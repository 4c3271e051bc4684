"""`snnjax cost [EXPERIMENT.py | RUN]`: operations, energy and memory traffic of a network.

A run is measured with its trained checkpoint on test examples, evenly spread over the test set; an
experiment with fresh weights and the normalisation statistics of its first batch; without an
argument all models of the zoo, in one table. There are two separate reports: NeuroBench's figures
(`cost.neurobench`), and the energy estimate at 45 nm used in papers (`cost.energy`).

Fields of its JSON object, for a run or an experiment:

    name, source    name of the experiment; "run" (with run and step) or "experiment"
    examples, timesteps, batch      a batch is one call in NeuroBench's sense
    neurobench      figures of `cost.neurobench`, counts per example; null if not defined
    energy          figures of `cost.energy`, per example
    layers          per connection: name, runs, rate (of its inputs), kind ("AC", "MAC"), static,
                    effective, dense, padded, per example
    attention       per product of activations: name, kind, effective, dense, per example
    over_time       the same for neurons that weigh currents over time, such as PSN
    uncounted       layers with weights that do not report their operations
    backward        per layer of a spiking solver (SPIDE): name, neurons, timesteps, rate, spikes
                    per example, in the gradient of one training batch
    firing_rate     spikes per neuron and timestep
    break_even      reference value for the comparison with a conventional network
    device, jax     kind of device, version of jax
    seconds         duration of the command

and for the zoo: rows, one per model with model, told (its description), slim, timesteps, batch,
parameters_published, neurobench, energy, firing_rate and seconds; seconds and interrupted as for
`snnjax memory`.
"""

from __future__ import annotations

import dataclasses
import functools
import signal
import time
from typing import Any

import jax
import numpy as np
from flax import nnx

from snnjax import cost, data, learning, training
from snnjax.cli import _cache as cache
from snnjax.cli._experiment_args import experiment_path, parse_experiment
from snnjax.cli._failures import Failure, Interrupted
from snnjax.cli._options import Option, parse
from snnjax.cli._output import Screen, spell_size
from snnjax.cli._restore import OPTIONS, restore

__all__ = [
    "command",
    "header",
    "legend",
    "measure_examples",
    "print_report",
    "row_line",
]

# Fixed widths: rows are printed while later models are still to be measured.
_WIDTHS = (21, 4, 3, 11, 6, 9, 9, 9, 9, 9, 9, 9, 8)
_TITLES = (
    *("model", "T", "B", "parameters", "rate"),
    *("eff. MAC", "eff. AC", "dense"),
    *("MAC", "AC", "mJ", "traffic", "seconds"),
)


def legend() -> str:
    """Legend of the columns of the table."""
    return (
        "Networks with fresh weights, normalised by their own batch, on random inputs; per example "
        "over T timesteps.\nrate: spikes per neuron and timestep. Two counts that do not mix: "
        "NeuroBench's (eff. MAC, eff. AC, dense:\nwithout zeros and padding) and the 45 nm "
        "estimate (MAC, AC, mJ: all products of real inputs, products\ntimes the rate of input "
        "spikes, attention included). traffic: bytes of weights, membranes and\nactivations, "
        "not in mJ."
    )


def header() -> str:
    """Header of the table."""
    return _columns(_TITLES)


def row_line(row: dict[str, Any]) -> str:
    """Row of one model; slim models are marked."""
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


def print_report(
    figures: Any,
    estimate: Any,
    layers: list[dict[str, Any]],
    products: dict[str, list[dict[str, Any]]],
    uncounted: list[str],
    screen: Screen,
) -> None:
    """Prints both reports and the table of layers."""
    for line in (
        *_layer_lines(layers, products),
        *_neurobench_lines(figures),
        *_energy_lines(estimate),
    ):
        screen.say(line)
    if uncounted:
        screen.say(
            f"not counted, since they do not report their operations: {', '.join(uncounted)}. Give "
            "their modules a method operations(inputs), see nn.Fold"
        )


def spell(number: float) -> str:
    """Formats a count in thousands, millions, billions."""
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


def _neurobench_lines(figures: Any) -> list[str]:
    sparsity = figures.connection_sparsity
    # NeuroBench counts operations of some neurons only; a 0 would claim a measurement.
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


def _energy_lines(estimate: Any) -> list[str]:
    traffic = (estimate.parameter_traffic, estimate.membrane_traffic, estimate.activation_traffic)
    weights, membranes, activations = map(spell_size, traffic)
    parts = {
        "attention": (estimate.attention_macs, estimate.attention_acs),
        "neurons over time": (estimate.over_time_macs, estimate.over_time_acs),
    }
    return [
        "Energy at 45 nm, an estimate, per example (norms folded into connections):",
        f"  4.6 pJ x {spell(estimate.macs)} MAC + 0.9 pJ x {spell(estimate.acs)} AC = "
        f"{estimate.millijoules:.4g} mJ"
        + "".join(
            f", of which {kind} {spell(macs)} MAC and {spell(acs)} AC"
            for kind, (macs, acs) in parts.items()
            if macs or acs
        ),
        f"  with each connection once as multiplications: {estimate.once_millijoules:.4g} mJ",
        f"  counted once for all timesteps, for static inputs: "
        f"{', '.join(estimate.static) or 'none'}",
        f"  memory traffic, not included: weights {weights}, membranes {membranes}, activations "
        f"{activations}",
        f"  firing rate {estimate.rate:.4f} spikes per neuron and timestep, T = "
        f"{estimate.timesteps}; {cost.BREAK_EVEN}",
    ]


def _columns(cells: tuple[Any, ...]) -> str:
    # Names stand at the left, numbers at the right, so that digits line up.
    first, *others = zip(cells, _WIDTHS, strict=True)
    return "  ".join([f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)])


_DESCRIPTION = "Synaptic operations, energy at 45 nm and memory traffic, from a forward pass."
_BATCH = 16  # at most: recorded activity stays in memory until it is counted
_EXAMPLES = Option("examples", int, 64, "Number of test examples.")
_MODELS = Option("models", str | None, None, "Models, such as vgg,mlp; None is the whole zoo.")


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Measures a run, an experiment or the zoo."""
    began = time.perf_counter()
    path, rest = experiment_path(arguments)
    if path is None:
        return _zoo(rest, screen, began)
    # A run is a folder, an experiment a file.
    if path.is_dir():
        options = parse("snnjax cost RUN", _DESCRIPTION, [*OPTIONS, _EXAMPLES], arguments)
        # Before the run is restored, which loads data and compiles a program.
        _check(options.examples)
        run, session, state = restore(options, warn=screen.warn)
        source = {"source": "run", "run": str(run.path), "step": int(state.step)}
        program, dataset = session.program, session.dataset
    else:
        if path.suffix != ".py":
            raise Failure(
                f"{path} is no run directory and no experiment: snnjax cost RUN, EXPERIMENT.py, or "
                "nothing for every model of the zoo"
            )
        options, experiment = parse_experiment(
            "cost", _DESCRIPTION, [_EXAMPLES, cache.OPTION], arguments
        )
        _check(options.examples)
        cache.enable(on=not options.no_cache, warn=screen.warn)
        dataset = training.config.load_dataset(experiment)
        # Only the schedule depends on the number of steps, and no step is trained.
        program, state = training.initialize(experiment, steps=1)
        source = {"source": "experiment"}
    trained = source["source"] == "run"
    weights = "trained weights" if trained else "fresh weights, normalisation settled on them"
    number = min(options.examples, len(dataset.test))
    screen.say(f"{program.experiment.name}: {number} test examples, {weights}")
    found, batch = measure_examples(program, state, dataset, options.examples, trained=trained)
    network = program.network(state)
    fields = _fields(network, found, screen)
    return {
        "name": program.experiment.name,
        **source,
        **fields,
        "backward": _backward_spikes(program, state, dataset, found, screen),
        "batch": batch,
        "device": next(iter(training.sharding.make_mesh().devices.flat)).device_kind,
        "jax": jax.__version__,
        "seconds": round(time.perf_counter() - began, 3),
    }, 0


def _check(examples: int) -> None:
    if examples < 1:
        raise Failure(f"--examples must be at least 1, got {examples}")


def measure_examples(program, state, dataset, examples: int, *, trained: bool):
    """Tally of evenly spread test examples, and the batch size.

    Args:
        program: Program of the network.
        state: Its state.
        dataset: Its data.
        examples: Number of test examples.
        trained: False settles the normalisation statistics on the first batch.
    """
    test, experiment = dataset.test, program.experiment
    number = min(examples, len(test))
    # Spread: test sets are often sorted by class.
    places = np.unique(np.linspace(0, len(test) - 1, number).round().astype(int))
    # A batch larger than the examples would be padding.
    size = min(_BATCH, len(places))

    @jax.jit
    def settle(state, inputs, lengths):
        frames = experiment.encode(experiment, inputs, None)
        # A fixed key: the same experiment gives the same figures in every run.
        key = jax.random.key(0)
        return cost.counting.settle_statistics(
            program.network(state), state.statistics, frames, key, lengths=lengths
        )

    @jax.jit
    def count(state, inputs, lengths):
        frames = experiment.encode(experiment, inputs, None)
        return cost.counting.count_operations(
            program.network(state), state.statistics, frames, lengths=lengths
        )

    total = None
    # Layers and `encode` may be the user's: an error in them is bad input and no defect.
    with training.errors.user_code("measuring the network"):
        for start in range(0, len(places), size):
            # The last batch is padded, so that one shape is compiled.
            chosen = np.resize(places[start : start + size], size)
            real = np.arange(size) < len(places) - start
            part = test.take(chosen)
            inputs, lengths = part.inputs, part.lengths
            if total is None and not trained:
                # Fresh statistics, mean 0 and variance 1, would give rates of no trained network.
                state = state._replace(statistics=settle(state, inputs, lengths))
            counts = count(state, inputs, lengths)
            # Weight 0 leaves the padding of the last batch out of the sums.
            part = cost.counting.tally(program.network(state), counts, weights=real)
            total = part if total is None else total + part
    # There is at least one example, as `_check` and the data set's own check assure.
    assert total is not None
    return total, size


def _backward_spikes(program, state, dataset, found, screen: Screen) -> list[dict[str, Any]]:
    """Spikes of the backward neurons of a spiking solver, in the gradient of one training batch."""
    modules = [m for _, m in nnx.iter_modules(program.network(state))]
    layers = [m for m in modules if isinstance(m, learning.Equilibrium) and not m.exact]
    timesteps = [
        getattr(layer.solver, "timesteps", 0) for layer in layers if layer.feedback is not None
    ]
    # Names of their records have no layer, so two such layers could not be told apart.
    if len(timesteps) != 1 or not timesteps[0]:
        return []
    size = min(program.experiment.batch, len(dataset.train))
    batch = data.Loader(dataset.train, batch_size=size, seed=program.experiment.seed).batch(0)
    with training.errors.user_code("the gradient of a training batch"):
        step = jax.jit(functools.partial(training.train_step, program))
        values = jax.device_get(step(state, batch)[1].metrics)
    names = [name for name in values if name.startswith("backward_rate")]
    # By number: the tenth layer stands behind the ninth.
    rates = [float(values[name]) for name in sorted(names, key=lambda n: (len(n), n))]
    neurons = [(n, layer) for n, layer in found.neurons.items() if n.startswith("equilibrium")]
    rows = []
    # An equation for the outputs alone has the neurons of the last layer.
    for (name, layer), rate in zip(neurons[-len(rates) :], rates, strict=True):
        count = layer.outputs // (found.examples * found.timesteps)
        own = {"name": name, "neurons": count, "timesteps": timesteps[0], "rate": rate}
        rows.append({**own, "spikes": count * timesteps[0] * rate})
    total = sum(row["spikes"] for row in rows)
    listed = ", ".join(f"{row['name']} {row['rate']:.4f}" for row in rows)
    screen.say(
        f"Backward neurons, in the gradient of a training batch: {total:,.1f} spikes per example "
        f"over {timesteps[0]} timesteps; spikes per neuron and timestep: {listed}"
    )
    return rows


def _fields(network: Any, found: Any, screen: Screen) -> dict[str, Any]:
    """Prints the reports and returns their fields."""
    figures, estimate = cost.neurobench(network, found), cost.energy(found)
    # Tallies are sums over examples.
    each = lambda number: number / found.examples  # noqa: E731
    layers = [
        {
            "name": name,
            "runs": layer.runs,
            "rate": layer.rate,
            "kind": "AC" if layer.binary else "MAC",
            "static": layer.static,
            "effective": each(layer.effective_macs + layer.effective_acs),
            "dense": each(layer.dense),
            "padded": each(layer.padded),
        }
        for name, layer in found.connections.items()
    ]
    # Both keys even if empty, so that readers of the JSON object find the same fields.
    products = {"attention": [], "over_time": []}
    for name, layer in found.products.items():
        row = {
            "name": name,
            "kind": "AC" if layer.binary else "MAC",
            "effective": each(layer.effective),
            "dense": each(layer.dense),
        }
        products["over_time" if cost.counting.is_temporal(name) else "attention"].append(row)
    missing = cost.counting.uncounted_layers(network)
    print_report(figures, estimate, layers, products, missing, screen)
    return {
        "examples": found.examples,
        "timesteps": found.timesteps,
        "neurobench": dataclasses.asdict(figures),
        "energy": dataclasses.asdict(estimate),
        "layers": layers,
        **products,
        "uncounted": missing,
        "firing_rate": found.rate,
        "break_even": cost.BREAK_EVEN,
    }


def _zoo(arguments: list[str], screen: Screen, began: float) -> tuple[dict[str, Any], int]:
    options = parse("snnjax cost", _DESCRIPTION, [_MODELS, cache.OPTION], arguments)
    names = _model_names(options.models)
    cache.enable(on=not options.no_cache, warn=screen.warn)
    screen.say(legend())
    screen.say(header())
    rows: list[dict[str, Any]] = []
    stopped = None
    for name in names:
        rows.append(_row(name, cost.ZOO[name]))
        # From the first row on a signal ends the measurements and not the report.
        screen.listener.patient = True
        # At once, since a model takes seconds and the zoo has many.
        screen.say(row_line(rows[-1]))
        if (stopped := screen.listener.number) is not None:
            screen.say(f"{Interrupted(stopped)}: earlier measurements are kept")
            break
    seconds = round(time.perf_counter() - began, 3)
    for row in rows:
        if row["slim"]:
            screen.say(f"* {row['model']}: {row['slim']}; as published it has "
                       f"{row['parameters_published']:,} parameters")  # fmt: skip
    screen.say(f"{len(rows)} models in {seconds:.0f} s. Break-even: {cost.BREAK_EVEN}")
    return {
        "rows": rows,
        "break_even": cost.BREAK_EVEN,
        "device": next(iter(training.sharding.make_mesh().devices.flat)).device_kind,
        "jax": jax.__version__,
        "seconds": seconds,
        "interrupted": stopped and signal.Signals(stopped).name,
    }, 128 + stopped if stopped else 0


def _model_names(text: str | None) -> list[str]:
    if text is None:
        return list(cost.ZOO)
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in cost.ZOO]
    if unknown or not names:
        raise Failure(f"--models takes some of {', '.join(cost.ZOO)}, got {text!r}")
    # A name given twice would be measured twice.
    return list(dict.fromkeys(names))


def _row(name: str, case: Any) -> dict[str, Any]:
    began = time.perf_counter()
    # A fixed seed, so that tables of different days can be compared.
    network, frames = case.draw(seed=0)
    # In training, fresh weights are normalised by their own batch; fresh running statistics would
    # give rates of no trained network.
    found = cost.measure(network, frames, training=True)
    return {
        "model": name,
        "told": case.description,
        "slim": case.slim,
        "timesteps": found.timesteps,
        "batch": case.batch,
        # Some cases are slimmer than the published network, see `slim`.
        "parameters_published": case.parameters(),
        "neurobench": dataclasses.asdict(cost.neurobench(network, found)),
        "energy": dataclasses.asdict(cost.energy(found)),
        "firing_rate": found.rate,
        "seconds": round(time.perf_counter() - began, 3),
    }
