"""Training step of four workloads, under every memory strategy and in other libraries.

The workloads are those of `peers/workloads.py`: W1 dense, W2 convolutions with batch norm, W3 long
windows of dense layers (W3R recurrent), W4 neurons alone. Each program is a process, pinned to
`--cores` cores; all processes exist at once, and each takes one step in turn, in a rotating order,
so that other load on the machine affects all of them. The first rounds are warm-up: on a virtual
machine the first use of memory is slow, and a step takes up to twice its time.

The table lists for each program: median CPU time of a step (the main figure: more reliable than
wall time on a busy machine), median wall time, the median over rounds of the ratio to one program
(`ratio`, to spikingjelly where it runs), time of the first step, temporary arrays as planned by
XLA, and growth of the resident memory. Programs with the same first-step loss to 6 digits and the
same letter in the column `loss` compute the same function: batch norm per timestep is another
function than batch norm over the whole window.

Missing peers are omitted; `peers/README.md` describes their installation.

Hardware: 2 CPU cores, of which one is used (float32)
Time: about 2 minutes a workload, 6 with W2T16
Command: python experiments/benchmarks/peers.py --torch-python VENV/bin/python
The last line of stdout is one JSON object, which `--json` keeps; `--picture` draws it.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import string
import subprocess
import sys

HERE = pathlib.Path(__file__).parent / "peers"
TIME = ["time", "time, recompute(1), lean"]
PARTS = ["layer, 8 parts", "layer, 16 parts"]
PACK = ["time, recompute(1, currents), lean", "time, recompute(2), pack, lean"]
SEQUENCE = [f"time, recompute({k}, sequence{keep}), lean" for k, keep in (
    (2, ""), (5, ""), (5, ", linear0"), (5, ", currents")
)]  # fmt: skip
DENSE = ["layer", *PARTS, *TIME, "time, recompute(sqrt), lean", *SEQUENCE]
CONV = ["layer", "layer, lean", "layer, pack, lean", "layer, norm per step", *TIME, *PACK]
ALONE = ["LIF", "LIF store", "LIF recompute(1)", "LIF recompute(6)"]
TORCH = ["spikingjelly", "snntorch"]
LAST = [f"{name} channels_last" for name in TORCH]
JAXPIKE = ["jaxpike", "jaxpike scan_unroll=1", "jaxpike checkpointed"]
# Workload -> programs of snnjax, of PyTorch, of JAX peers, and of brainpy.
PROGRAMS: dict[str, tuple[list[str], list[str], list[str], list[str]]] = {
    "W1": (DENSE, [*TORCH, "norse"], ["spyx", *JAXPIKE], ["brainpy"]),
    "W2T4": (CONV, [*TORCH, *LAST], [], []),
    "W2T16": (CONV, [*TORCH, *LAST], [], []),
    "W3": (DENSE, [*TORCH, "norse"], ["spyx", *JAXPIKE], ["brainpy"]),
    "W3R": (DENSE, ["snntorch"], JAXPIKE, []),
    "W4": (ALONE, [*TORCH, "norse"], ["spyx", *JAXPIKE], ["brainpy"]),
}
for name in ("W1", "W3R", "W2", "W4"):
    PROGRAMS[f"{name}-small"] = PROGRAMS[{"W2": "W2T4"}.get(name, name)]


class Program:
    """A process that executes training steps on request."""

    def __init__(self, name: str, python: str, file: str, workload: str, cores: int):
        self.name, self.workload, pipe = name, workload, subprocess.PIPE
        command = [python, str(HERE / file), name, workload, str(cores)]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.about, self.steps = self._read(), []

    def step(self, *, counts: bool) -> None:
        """Executes one step, and records its times unless it is a warm-up step."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        taken = self._read()
        if counts:
            self.steps.append(taken)

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(map(str, self._process.args))} ended: see above")
        return json.loads(line)

    def median(self, what: str) -> float:
        """Median of a quantity over all steps."""
        return statistics.median(step[what] for step in self.steps)

    def ratio(self, other: Program, what: str) -> float:
        """Median over rounds of the ratio to another program."""
        pairs = zip(self.steps, other.steps, strict=True)
        return statistics.median(a[what] / b[what] for a, b in pairs)


def start_programs(workload: str, options: argparse.Namespace) -> list[Program]:
    """Starts the available programs of a workload."""
    ours, torch, other, brain = PROGRAMS[workload]
    wanted = [(f"snnjax {name}", sys.executable, "ours.py") for name in ours]
    if workload[:2] in ("W1", "W3"):
        wanted.append(("products", sys.executable, "ours.py"))
    for names, python, file in (
        (torch, options.torch_python, "pytorch.py"),
        (other, options.jax_python, "other_jax.py"),
        (brain, options.brain_python, "other_jax.py"),
    ):
        wanted += [(name, python, file) for name in names if python]
    if options.only:
        wanted = [row for row in wanted if any(part in row[0] for part in options.only)]
    found = []
    for name, python, file in wanted:
        try:
            found.append(Program(name, python, file, workload, options.cores))
        except (RuntimeError, OSError) as error:  # not installed, or no such interpreter
            if file == "ours.py":
                raise
            print(f"left out: {error}", file=sys.stderr)
    return found


def measure(workload: str, options: argparse.Namespace) -> list[dict]:
    """Rows of the table, one per program."""
    programs = start_programs(workload, options)
    try:
        for turn in range(options.warm + options.rounds):
            first = turn % len(programs)
            for program in programs[first:] + programs[:first]:
                program.step(counts=turn >= options.warm)
    finally:
        for program in programs:
            program.close()
    named = {program.name: program for program in programs}
    base = named.get(options.base, programs[0])
    losses: list[str] = []
    return [row(program, base, losses) for program in programs]


def row(program: Program, base: Program, losses: list[str]) -> dict:
    """Row of a program."""
    about = dict(program.about)
    loss = f"{about['loss']:.5e}"
    if loss not in losses:
        losses.append(loss)
    steps = {what: [step[what] for step in program.steps] for what in ("cpu", "wall")}
    return about | {
        "workload": program.workload, "program": program.name, "base": base.name,
        "same": string.ascii_lowercase[losses.index(loss)],
        "cpu": program.median("cpu"), "wall": program.median("wall"), "steps": steps,
        "ratio": program.ratio(base, "cpu"), "wall_ratio": program.ratio(base, "wall"),
        "resident": max(step["resident"] for step in program.steps),
    }  # fmt: skip


def format_row(row: dict) -> str:
    """Row of the table as text."""
    temporary = f"{row['temporary']:8.1f}" if "temporary" in row else f"{'':8}"
    return (
        f"{row['workload']:6} {row['program']:38} {row['same']:>4} {1e3 * row['cpu']:9.1f} "
        f"{row['ratio']:6.2f} {1e3 * row['wall']:9.1f} {row['first']['wall']:7.2f} {temporary} "
        f"{row['resident']:9.0f}  {row.get('differs', '')}"
    )


def picture(rows: list[dict], path: pathlib.Path) -> pathlib.Path:
    """Draws CPU time of a step against its additional memory, one panel per workload.

    Labels mark our programs that no other program of ours beats in both.
    """
    from snnjax import viz

    names = list(dict.fromkeys(row["workload"] for row in rows))
    columns = min(2, len(names))
    lines = -(-len(names) // columns)
    figure, axes = viz._style.subplots(rows=lines, columns=columns, height=0.5 + 2.6 * lines)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names, strict=False):
        found = [r for r in rows if r["workload"] == name and r["program"] != "products"]
        for row in found:
            mine = row["program"].startswith("snnjax")
            colour = viz._style.BLUE if mine else viz._style.VERMILION
            place = (1e3 * row["cpu"], row["resident"])
            axis.plot(*place, "o", color=colour, markersize=4)
            if mine and any(_better(other, row) for other in found if other is not row):
                continue
            label = row["program"].removeprefix("snnjax ").replace("recompute", "r")
            axis.annotate(label, place, (4, -2), textcoords="offset points", fontsize=6)
        axis.set_xlim(0, 1.35e3 * max(row["cpu"] for row in found))
        axis.set_ylim(0, 1.1 * max(row["resident"] for row in found))
        viz._style.polish(axis)
        viz._style.write(axis, title=name, x="CPU time of a step (ms)", y="resident (MiB)")
    figure.set_label("CPU time and memory of a training step, by program")
    return viz.save(figure, path)


def _better(one: dict, other: dict) -> bool:
    return one["cpu"] <= other["cpu"] and one["resident"] <= other["resident"]


def main() -> None:
    """Measures all workloads, prints and draws the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workloads", nargs="+", choices=PROGRAMS, default=[*PROGRAMS][:6])
    parser.add_argument("--torch-python", help="an interpreter that has spikingjelly and snntorch")
    parser.add_argument("--jax-python", help="an interpreter that has spyx and jaxpike")
    parser.add_argument("--brain-python", help="an interpreter that has brainpy")
    parser.add_argument("--only", nargs="+", help="programs whose name holds one of these")
    parser.add_argument("--base", default="spikingjelly", help="what ratios are to")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--warm", type=int, default=3, help="rounds before them that do not count")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--picture", type=pathlib.Path)
    options = parser.parse_args()
    print(
        f"{'':6} {'':38} {'loss':>4} {'CPU ms':>9} {'ratio':>6} {'clock ms':>9} {'first s':>7} "
        f"{'temp MiB':>8} {'RSS+ MiB':>9}"
    )
    rows = []
    for workload in options.workloads:
        found = measure(workload, options)
        rows += found
        print(*map(format_row, found), sep="\n", flush=True)
    result = {"rows": rows, "cores": options.cores, "rounds": options.rounds}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    if options.picture:
        picture(rows, options.picture)
    short = [{k: v for k, v in row.items() if k != "steps"} for row in rows]
    print(json.dumps(result | {"rows": short}))


if __name__ == "__main__":
    main()
