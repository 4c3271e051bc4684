"""Bytes per image of RevSResNet37 against MS-ResNet34, each under several memory strategies.

Zhang and Zhang, "Memory-Efficient Reversible Spiking Neural Networks", 2024, arXiv:2312.07922,
publish 3.79 times less (GPU memory per image, both as the framework runs them).

Gradient of the cross entropy of the mean logits with respect to the parameters; images 32x32x3,
T = 4, integrate-and-fire neurons with a hard reset in both, float32; slope between batches of 8 and
24 (`bytes_per_image.py`). "on" is XLA:CPU's memory-optimised scheduler (the default of training
here), "off" its default scheduler.

Run:
    python experiments/benchmarks/reversible_resnet.py            # ten minutes
    python experiments/benchmarks/reversible_resnet.py --json

Compiled with jax 0.10.2, MB per image and reduction against the baseline's `depth=store`:

                                                    on               off
    MS-ResNet34     store                          49.55   1.00x    49.81   1.00x
                    recompute(1), pack              9.42   5.26x     9.83   5.06x
    RevSResNet37    store                          45.87   1.08x    47.45   1.05x
                    reverse(inner=store)           13.40   3.70x    13.30   3.75x
                    reverse                         9.49   5.22x     9.32   5.34x
                    reverse, pack                   9.85   5.03x     9.75   5.11x

The baseline under its own best strategy needs as little at this depth (0.99 to 1.05 times the bytes
of reversal): the remainder is the working set of one block. Each further block costs the baseline a
block boundary, and reversal nothing (`experiments/rev_resnet_1005.py`).
"""

from __future__ import annotations

import argparse
import functools
import json

import jax
from bytes_per_image import BATCHES, per_image

from snnjax import models
from snnjax.models.rev_resnet import integrate_and_fire

T = 4
NETWORKS = {
    "MS-ResNet34": functools.partial(models.ms_resnet, depth=34, neuron=integrate_and_fire),
    "RevSResNet37": functools.partial(models.rev_resnet, depth=37),
}
ROWS = (
    ("MS-ResNet34", "depth=store"),
    ("MS-ResNet34", "depth=recompute(1), pack=True"),
    ("RevSResNet37", "depth=store"),
    ("RevSResNet37", "depth=reverse(inner=store)"),
    ("RevSResNet37", "depth=reverse"),
    ("RevSResNet37", "depth=reverse, pack=True"),
)


def main() -> None:
    """Compiles every row twice per scheduler and prints a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows, against = [], {}
    for name, strategy in ROWS:
        for scheduler in (True, False):
            each, large = per_image(
                NETWORKS[name], strategy, timesteps=T, memory_scheduler=scheduler
            )
            less = against.setdefault(scheduler, each) / each
            row = {"network": name, "strategy": strategy, "memory_scheduler": scheduler}
            rows.append({**row, "bytes_per_image": each, "temp_bytes": large, "ratio": less})
            if not options.json:
                print(
                    f"{name:14}{strategy:32}{'on' if scheduler else 'off':5}"
                    f"{each / 1e6:7.2f} MB per image {less:5.2f}x less, "
                    f"{large / 1e6:6.0f} MB at a batch of {BATCHES[1]}",
                    flush=True,
                )
    if options.json:
        print(json.dumps({"jax": jax.__version__, "timesteps": T, "rows": rows}))


if __name__ == "__main__":
    main()
