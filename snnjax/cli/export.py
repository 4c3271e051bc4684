"""`snnjax export RUN [--out FOLDER]`: an artifact that runs without the network's code.

A window maps inputs, as stored in the data set, to predictions after a fixed number of timesteps;
with --streaming the artifact maps one encoded frame and the neurons' state to the next state and
the outputs. By default it takes batches of any size and runs on CPUs, NVIDIA GPUs and TPUs; if a
network does not admit this, the message names the option to restrict it. Before the artifact gets
its name, it is loaded and compared with the network on test examples.

Fields of its JSON object:

    run, step       run directory, and step of the checkpoint
    artifact        path of the folder
    kind            "window" or "streaming"
    timesteps       timesteps of the window
    batch           "any", or the batch size
    platforms       supported platforms
    parameters      number of parameters, with running statistics and constants
    bytes           size of all its files
    digest          of the artifact, for `export.load(folder, digest=...)`
    examples        number of compared test examples; null if the artifact does not run here
    difference      largest difference of a prediction from the network's; 0.0 is bit-equal
    seconds         duration of the command
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import data, export, training
from snnjax.cli._failures import Failure
from snnjax.cli._options import Option, parse
from snnjax.cli._output import Screen, spell_size
from snnjax.cli._restore import OPTIONS, restore

__all__ = ["command"]

_COMPARED = 8  # test examples, unless the batch is fixed
_ROUNDING = 1e-5  # of the largest prediction: the effect of another order of additions
_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_DESCRIPTION = "Write a trained network as a folder that runs without the code that trained it."
_OPTIONS = [
    *OPTIONS,
    Option("out", str | None, None, "Folder of the artifact; None is RUN/export/KIND-STEP."),
    Option("streaming", bool, False, "One timestep with explicit state instead of the window."),
    Option("batch", str, "any", 'Batch size: "any", or a number.'),
    Option("platforms", str, "cpu,cuda,tpu", f"Platforms, of {', '.join(_PLATFORMS)}."),
]


@dataclasses.dataclass
class _Comparison:
    """Comparison of an artifact with its network on the first test examples."""

    session: Any
    state: training.TrainState
    source: export.Source
    platforms: tuple[str, ...]
    examples: int | None = None
    difference: float | None = None
    largest: float = 0.0

    def __call__(self, path: Path) -> None:
        """Compares an artifact under its temporary path."""
        backend = jax.default_backend()
        # jax.export distinguishes the two kinds of GPU, the backend does not.
        if not {"gpu": {"cuda", "rocm"}}.get(backend, {backend}) & set(self.platforms):
            return  # the artifact does not run on this machine
        artifact = export.load(path)
        size = artifact.manifest["batch"]
        size = min(_COMPARED, len(self.session.dataset.test)) if size == "any" else size
        inputs = next(data.evaluation_batches(self.session.dataset.test, batch_size=size)).inputs
        expected = np.asarray(_network_predictions(self.session, self.state, inputs))
        predictions = np.asarray(_artifact_predictions(artifact, self.source, inputs))
        self.examples, self.largest = size, float(np.abs(expected).max())
        # Equal bits first: the difference of two infinities would be NaN.
        same = np.array_equal(predictions, expected, equal_nan=True)
        self.difference = 0.0 if same else float(np.abs(predictions - expected).max())


def command(arguments: list[str], screen: Screen) -> tuple[dict[str, Any], int]:
    """Writes an artifact."""
    began = time.perf_counter()
    options = parse("snnjax export", _DESCRIPTION, _OPTIONS, arguments)
    # Options are read before the run is restored, which takes longer.
    batch = _batch(options.batch)
    platforms = _platforms(options.platforms)
    if options.out is not None and Path(options.out).exists():  # before minutes of work
        raise Failure(
            f"{options.out} is there already and is not overwritten: choose another --out"
        )
    try:
        run, session, state = restore(options, warn=screen.warn)
        source, kind = _source(session, state), "streaming" if options.streaming else "window"
        out = Path(options.out or run.path / "export" / f"{kind}-{source.step}")
        compared = _Comparison(session, state, source, platforms)
        export.save(
            out, source,
            streaming=options.streaming, batch=batch, platforms=platforms, verify=compared,
        )  # fmt: skip
    # Its message names the option that asks for less.
    except export.ArtifactError as error:
        raise Failure(str(error)) from error
    size = sum(file.stat().st_size for file in out.iterdir())
    digest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["digest"]
    _report(screen, out, kind, size, digest, compared)
    return {
        "run": str(run.path),
        "step": source.step,
        "artifact": str(out),
        "kind": kind,
        "timesteps": session.experiment.timesteps,
        "batch": "any" if batch is None else batch,
        "platforms": list(platforms),
        "parameters": sum(x.size for x in jax.tree.leaves((source.network, source.statistics))),
        "bytes": size,
        "digest": digest,
        "examples": compared.examples,
        "difference": compared.difference,
        "seconds": round(time.perf_counter() - began, 3),
    }, 0


def _batch(text: str) -> int | None:
    if text == "any":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise Failure(f"--batch is any, or a number of examples from 1 on, got {text!r}")
    return int(text)


def _platforms(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not set(names) <= set(_PLATFORMS):
        raise Failure(f"--platforms is some of {', '.join(_PLATFORMS)}, got {text!r}")
    return names


def _source(session: Any, state: training.TrainState) -> export.Source:
    experiment, dataset = session.experiment, session.dataset
    # One stored example tells the shape and dtype of the artifact's inputs.
    example = next(data.evaluation_batches(dataset.test, batch_size=1)).inputs

    @functools.wraps(experiment.encode)  # the manifest quotes the experiment's function
    def encode(inputs: Any) -> Any:
        return experiment.encode(experiment, inputs, None)

    return export.Source(
        name=experiment.name,
        network=session.program.network(state),
        statistics=state.statistics,
        encode=encode,
        readout=experiment.readout,
        example=jax.ShapeDtypeStruct(example.shape[1:], example.dtype),
        class_names=tuple(dataset.class_names),
        step=int(state.step),
        clips=experiment.clips,
    )


def _network_predictions(session: Any, state: training.TrainState, inputs: Any) -> Any:
    """Predictions in evaluation, as `training.eval_step` computes them."""

    def run(state: training.TrainState, inputs: Any) -> Any:
        frames = session.experiment.encode(session.experiment, inputs, None)
        network = session.program.network(state)
        start = network.initial_state(len(inputs))._replace(statistics=state.statistics)
        outputs, _ = network(frames, start, training=False)
        return session.experiment.readout(outputs)

    return jax.jit(run)(state, inputs)


def _artifact_predictions(artifact: Any, source: export.Source, inputs: Any) -> Any:
    if artifact.manifest["kind"] == "window":
        return artifact(inputs)
    state, outputs = artifact.initial_state(len(inputs)), []
    # Frame by frame, as a stream arrives, from the state at rest.
    for frame in jax.jit(source.encode)(inputs):
        state, one = artifact(state, frame)
        outputs.append(one)
    return source.readout(jnp.stack(outputs))


def _report(
    screen: Screen, out: Path, kind: str, size: int, digest: str, compared: _Comparison
) -> None:
    screen.say(f"{out}: a {kind} of {spell_size(size)}")
    screen.say(f"  digest {digest}")
    if compared.difference is None:
        screen.say("  not compared with the network, since it does not run on this machine")
    else:
        if compared.difference > _ROUNDING * max(compared.largest, 1e-3):
            why = (
                "a spike moved by a timestep, or nn.StaticInput gets frames that differ"
                if kind == "streaming"
                else "its program adds in another order, as on a GPU, and a spike flipped"
            )
            screen.warn(f"{out} differs from the network by more than rounding: {why}")
        equality = "bit for bit" if compared.difference == 0 else f"to {compared.difference:.3g}"
        screen.say(f"  predictions equal the network's {equality}, on {compared.examples} examples")
    screen.say(f'  snnjax.export.load("{out}") runs it without the experiment')
