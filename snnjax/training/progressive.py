"""Progressive tandem learning of a trained run: stages of training, resumed at any time.

    run    = Run.open("runs/source-0")
    result = progressive.train(run, "runs/spiking-0", progressive.Options(timesteps=4))

A directory in which training was stopped or killed goes on with the same call, and ends with the
bits of an uninterrupted one:

    OUT/                   run of the spiking network: show, eval, cost, export; resume trains it
                           on, through time
    OUT/progressive.json   source, thresholds, scores of all epochs, metrics on the test examples
    OUT/stages/K/          run of stage K, with the held-out examples as its test split

The schedule is `conversion.progressive.progressive_step`, whose state follows from the recorded
scores. Epochs are scored by held-out training examples; the test examples are used once, at the
end. The released code reports the maximum over the epochs of the test accuracy instead, which is
higher.

References: Wu, Xu, Han, Zhou, Zhang, Li, Tan, "Progressive Tandem Learning for Pattern Recognition
with Deep Spiking Neural Networks", 2020, arXiv:2007.01204.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from snnjax import data, nn
from snnjax.conversion import progressive
from snnjax.conversion.progressive import Progress
from snnjax.training import _fingerprint as fingerprints
from snnjax.training import checkpoints, config
from snnjax.training._stages import (
    Options,
    spiking_experiment,
    stage_experiment,
)
from snnjax.training.converted import experiment_text, with_values
from snnjax.training.errors import RunError, user_code
from snnjax.training.loading import load
from snnjax.training.loop import fit
from snnjax.training.run import Run
from snnjax.training.session import prepare
from snnjax.training.state import initialize, make_task
from snnjax.training.task import Task
from snnjax.typing import Array, PyTree

__all__ = ["Options", "Result", "spiking_experiment", "stage_experiment", "train"]

_RECORD = "progressive.json"


@dataclasses.dataclass(frozen=True)
class Result:
    """Outcome of progressive tandem learning.

    Attributes:
        run: Run of the spiking network; without a checkpoint until training is done.
        progress: State of the schedule.
        interrupted: True if training was stopped.
        metrics: Metrics on the test examples by network: `"source"`, `"primitive"` (converted
            without further training) and `"spiking"`; empty until training is done.
    """

    run: Run
    progress: Progress
    interrupted: bool
    metrics: dict[str, dict[str, float]]


def train(
    source: Run,
    out: str | Path,
    options: Options,
    *,
    mesh: Mesh | None = None,
    stop: Callable[[], Any] = lambda: False,
    report: Callable[[dict[str, Any]], None] = lambda record: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Result:
    """Converts the network of a run layer by layer, or goes on with a conversion.

    Starts from the newest checkpoint of the source, whose network is that of
    `conversion.progressive.tandem_network`, with activations `conversion.ReLU`.

    Args:
        source: Run of the source network.
        out: New run directory, or one that this function began with the same options.
        options: Options of the training.
        mesh: Devices; None is the first one.
        stop: Called after every step; a true result saves the state and ends training.
        report: Called with the records of `training.fit`, each with the number of its `"stage"`,
            and with `{"kind": "threshold", "stage", "threshold"}` and `{"kind": "test", ...}`.
        warn: Called with a sentence about every tolerated fault.

    Raises:
        ExperimentError: The source does not learn by gradients, or a layer of it has no place in
            tandem learning; the message names it.
        RunError: The directory holds something else, or the source has no checkpoint.
    """
    experiment = config.gradient_experiment(source.experiment())
    final = spiking_experiment(experiment, options)
    text = source.source.read_text(encoding="utf-8")
    # Refused before anything is written: a wrong network, a source without a checkpoint.
    network, statistics = _source(source, warn)
    with user_code("progressive tandem learning"):
        network, statistics = progressive.tandem_network(network, statistics)
    text = experiment_text(
        text, f"training.progressive.spiking_experiment(source(), {_spell(options)})"
    )
    run = _open(Path(out), final, text)
    with run.lock(warn=warn):
        training = _Training(source, experiment, options, run, mesh, stop, report, warn)
        return training.run_to_the_end(network, statistics)


def _spell(options: Options) -> str:
    # The text of a dataclass is the call that makes it.
    return f"training.progressive.{options!r}"


def _open(path: Path, experiment: Any, text: str) -> Run:
    """The directory of an earlier call, or a new one."""
    if not (path / "config.json").exists():
        return Run.create(path, experiment, text)
    run, values = Run.open(path), json.loads(json.dumps(config.plain_values(experiment)))
    fields = [{**fields, "data_dir": None} for fields in (run.config(), values)]
    # The text holds the options, and config.json the fields of the source.
    if run.source.read_text(encoding="utf-8") != text or fields[0] != fields[1]:
        raise RunError(
            f"{path} is a run of another source or of other options: give those of before to go "
            "on with it, or another --out to start anew"
        )
    return run


def _source(run: Run, warn: Any) -> tuple[nn.Network, PyTree]:
    """Network and statistics of the newest checkpoint."""
    loaded = load(run, warn=warn)
    return loaded.network, loaded.statistics


class _Training:
    def __init__(self, source, experiment, options, run, mesh, stop, report, warn):
        self.source, self.experiment, self.options = source, experiment, options
        self.run, self.mesh, self.stop, self.report, self.warn = run, mesh, stop, report, warn
        new = {"source": str(source.path), "thresholds": [], "stages": []}
        self.record: dict[str, Any] = run.read_json(_RECORD) or new

    def run_to_the_end(self, network: nn.Network, statistics: PyTree) -> Result:
        """Runs the stages from the first; stages with all their scores are only replayed."""
        progress = Progress(len(progressive.layers(network)))
        epochs: list[tuple[int, int]] = []  # stage and step of every epoch
        while not progress.done:
            stage = progress.stage
            if progress.wants_threshold:
                network, progress = self._spike(network, statistics, progress)
            scores = self._train_stage(network, statistics, progress)
            progress = self._replay(progress, scores)
            if progress.stage == stage and not progress.done:
                return Result(self.run, progress, True, {})
            epochs += [(stage, step) for step in sorted(scores)]
            self._note(stage, scores)
            # Before the next threshold is measured: it belongs to the weights it is used with.
            network, statistics = self._load(progress.hidden, *epochs[progress.best_epoch - 1])
        return Result(self.run, progress, False, self._finish(network, statistics))

    def _spike(
        self, network: nn.Network, statistics: PyTree, progress: Progress
    ) -> tuple[nn.Network, Progress]:
        """Converts the layer of a new stage."""
        number, known, steps = progress.stage, self.record["thresholds"], self.options.timesteps
        if number == len(known):
            with user_code(f"the threshold of layer {number}"):
                top = progressive.percentile(
                    network, statistics, self._frames(), number, q=self.options.percentile
                )
            known.append(top / steps)
            self.run.write_json(_RECORD, self.record)
        self.report({"kind": "threshold", "stage": number, "threshold": known[number]})
        network = progressive.spike(network, number, threshold=known[number], timesteps=steps)
        return network, progress.with_threshold(known[number])

    def _train_stage(
        self, network: nn.Network, statistics: PyTree, progress: Progress
    ) -> dict[int, float]:
        """Scores of the epochs of a stage by step, after training that the schedule ends."""
        stage, experiment = progress.stage, self._experiment(progress.stage, progress.hidden)
        run, task = self._stage_run(stage, progress.hidden), make_task(experiment)
        scores = _recorded_scores(run, task)

        def ended() -> bool:
            after = self._replay(progress, scores)
            return after.done or after.stage > stage

        def report(record: dict[str, Any]) -> None:
            if record["kind"] == "eval":
                scores[record["step"]] = task.score(record)
            elif record["kind"] == "rollback":
                for step in [step for step in scores if step > record["step"]]:
                    del scores[step]
            self.report({**record, "stage": stage})

        if not ended():
            session = prepare(experiment, mesh=self.mesh)
            if not checkpoints.steps(run.checkpoints):
                start = with_values(session.state, network, statistics)
                checkpoints.save(run.checkpoints, start)
            stop = lambda: ended() or self.stop()  # noqa: E731
            fit(session, run, stop=stop, report=report, warn=self.warn)
        return scores

    def _replay(self, progress: Progress, scores: dict[int, float]) -> Progress:
        """The schedule after the epochs of a stage."""
        stage, options = progress.stage, self.options
        for _, score in sorted(scores.items()):
            if progress.done or progress.stage > stage:
                break
            progress = progressive.progressive_step(
                progress, score, patience=options.patience, epochs=options.epochs
            )
        return progress

    def _experiment(self, stage: int, hidden: int) -> Any:
        return stage_experiment(self.experiment, self.options, stage=stage, hidden=hidden)

    def _stage_run(self, stage: int, hidden: int) -> Run:
        path = self.run.path / "stages" / str(stage)
        if (path / "config.json").exists():
            return Run.open(path)
        # A process killed in the middle of its making leaves files of a run that is none; others
        # are not ours to delete, and `Run.create` refuses them.
        for name in ("experiment.py", "versions.json", "versions.json.part", "config.json.part"):
            (path / name).unlink(missing_ok=True)
        arguments = f"source(), {_spell(self.options)}, stage={stage}, hidden={hidden}"
        call = f"training.progressive.stage_experiment({arguments})"
        text = experiment_text(self.source.source.read_text(encoding="utf-8"), call)
        return Run.create(path, self._experiment(stage, hidden), text)

    def _load(self, hidden: int, stage: int, step: int) -> tuple[nn.Network, PyTree]:
        """Network and statistics of a checkpoint of a stage."""
        experiment = self._experiment(stage, hidden)
        program, state = initialize(experiment, steps=experiment.epochs)
        folder = self._stage_run(stage, hidden).checkpoints
        state = checkpoints.load(checkpoints.step_path(folder, step), state, warn=self.warn)
        return program.network(state), state.statistics

    def _frames(self) -> Array:
        """Images of training examples, one timestep."""
        experiment = self._experiment(0, 1)
        split = config.load_dataset(experiment).train
        size, draw = self.options.calibration, np.random.default_rng(self.options.seed)
        chosen = np.sort(draw.permutation(len(split))[:size])
        loader = data.Loader(split.take(chosen), batch_size=len(chosen), shuffle=False)
        with user_code("encode(experiment, inputs, key)"):
            return experiment.encode(experiment, jnp.asarray(loader.batch(0).inputs), None)

    def _note(self, stage: int, scores: dict[int, float]) -> None:
        """Writes the scores of a finished stage into the record, for its readers."""
        if stage == len(self.record["stages"]):
            ordered = [score for _, score in sorted(scores.items())]
            self.record["stages"].append({"stage": stage, "scores": ordered})
            self.run.write_json(_RECORD, self.record)

    def _finish(self, network: nn.Network, statistics: PyTree) -> dict[str, dict[str, float]]:
        """Evaluates the networks on the test examples, and writes the run of the spiking one."""
        if checkpoints.steps(self.run.checkpoints) and "test" in self.record:
            return self.record["test"]
        net, own = _source(self.source, self.warn)
        session = prepare(self.experiment, mesh=self.mesh, training=False)
        found = {"source": session.evaluate(with_values(session.state, net, own))}
        session = prepare(
            spiking_experiment(self.experiment, self.options), mesh=self.mesh, training=False
        )
        options = {"timesteps": self.options.timesteps, "q": self.options.percentile}
        start = progressive.primitive(net, own, self._frames(), **options)
        for name, tandems in (("primitive", start), ("spiking", (network, statistics))):
            state = with_values(
                session.state, progressive.spiking_network(*tandems), session.state.statistics
            )
            found[name] = session.evaluate(state)
        values = {name: {"loss": e.loss, **e.metrics} for name, e in found.items()}
        self.record["test"] = values
        self.run.write_json(_RECORD, self.record)
        fingerprints.check_data(
            self.run, session.data_fingerprint, step=0, allow=False, warn=self.warn
        )
        self.run.rewind(-1)  # of an earlier attempt that was killed here
        self.run.append(
            {"kind": "eval", "step": 0, "epoch": 0.0, **values["spiking"], "seconds": 0.0}
        )
        # Last: with its checkpoint the run is complete.
        checkpoints.save(self.run.checkpoints, state, score=session.task.score(values["spiking"]))
        self.report({"kind": "test", **values})
        return values


def _recorded_scores(run: Run, task: Task) -> dict[int, float]:
    """Scores of the epochs of a stage up to its newest checkpoint; later ones are repeated."""
    newest = max(checkpoints.steps(run.checkpoints), default=-1)
    records = [r for r in run.records() if r["kind"] == "eval" and r["step"] <= newest]
    return {record["step"]: task.score(record) for record in records}
