"""A checkpoint of a state cut over four devices is read onto one, two, four and eight."""

import os
import pathlib
import subprocess
import sys

SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from pathlib import Path
from snnjax import training
from snnjax.training import checkpoints
from snnjax.training.checkpoints.background import Saver

def state_on(devices, values):
    mesh = jax.make_mesh((devices,), ("fsdp",), (jax.sharding.AxisType.Auto,),
                         devices=jax.devices()[:devices])
    whole, cut = NamedSharding(mesh, P()), NamedSharding(mesh, P("fsdp"))
    put = lambda x, s: jax.device_put(x, s)
    return training.TrainState(
        step=put(jnp.asarray(7, jnp.int32), whole),
        position=put(jnp.asarray(9, jnp.int32), whole),
        params={"w": put(values, cut), "b": put(values[0], whole)},
        constants={},
        optimizer={"mu": put(-values, cut)},
        statistics={"mean": put(values[1], whole)},
        key=put(jax.random.fold_in(jax.random.key(1), int(values[0, 0])), whole),
        finite=put(jnp.ones((), bool), whole),
    )

def words(tree):
    raw = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    return [np.asarray(raw(x)).tobytes() for x in jax.tree.leaves(tree)]

folder = Path(sys.argv[1])
values = jnp.arange(3.0, 83.0).reshape(16, 5) / 7
state = state_on(4, values)
with Saver(folder, keep=1, step=0) as saver:
    saver.save(state)
path = checkpoints.newest(folder)
assert path.name == "00000007", path
for devices in (1, 2, 4, 8):
    like = state_on(devices, jnp.zeros((16, 5)))
    read = checkpoints.load(path, like)
    assert words(read) == words(state), devices
    for new, old in zip(jax.tree.leaves(read), jax.tree.leaves(like), strict=True):
        assert new.sharding == old.sharding, (devices, new.sharding, old.sharding)
    assert len(read.params["w"].addressable_shards) == devices
"""


def test_a_state_is_read_onto_other_devices(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "8"},
        cwd=pathlib.Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]
