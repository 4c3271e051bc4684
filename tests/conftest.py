"""Settings of every test: strict dtypes, a persistent compilation cache, eight fake CPU devices.

Programs are compiled fast here, not to be fast: tests wait for compilation, not for what is
compiled. `XLA_FLAGS= pytest` tests what users run, as the second lane of `.ci/run` does.
"""

import functools
import gc
import os
import pathlib
import signal
import tempfile
from importlib import metadata

import pytest

# Background jobs and nohup ignore signals that commands then ignore, too, and that tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("MPLBACKEND", "Agg")
flags = [
    "--xla_backend_optimization_level=0",  # LLVM optimises nothing
    "--xla_cpu_parallel_codegen_split_count=1",  # one module, not 32
]
if metadata.version("jaxlib").startswith("0.10."):
    # Emitters of loops older than the default ones, in a third of the time; later releases abort.
    flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(flags))
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "snnjax-test-cache")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_traceback_in_locations_limit", 0)  # every equation would be given one


def pytest_collection_finish(session):
    """Spares the garbage collector what stays: at its defaults it took a fifth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


MAPS = pathlib.Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def share_the_context():
    """Lowers the programs of a module in one MLIR context, which holds their types and constants.

    JAX makes one per program: 5 ms each, as much as it takes to lower an operation.
    """
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(mlir, "make_ir_context"):  # not public: without it tests are only slower
            patch.setattr(mlir, "make_ir_context", functools.cache(mlir.make_ir_context))
        yield


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Frees compiled programs before Linux runs out of memory maps for them.

    A program takes 10 to 20 of the 65,530 maps of a process; the first one that gets none ends the
    process with a segmentation fault.
    """
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


@pytest.fixture
def x64():
    """Runs a test in float64."""
    with jax.enable_x64(True):
        yield


def shared_folder(*parts: str) -> pathlib.Path:
    """A folder of real data or golden vectors beside the checkout, or a skip that says why."""
    root = pathlib.Path(__file__).resolve().parents[1]
    data = os.environ.get("SNNJAX_DATA")
    base = pathlib.Path(data).parent if data else root.parent / "shared"
    folder = base.joinpath(*parts)
    if not folder.exists():
        pytest.skip(
            f"{'/'.join(parts)} is not beside this checkout (../shared) nor under "
            "$SNNJAX_DATA: real data is never shipped with the package"
        )
    return folder


@pytest.fixture
def shared():
    """A function from path parts to a folder of real data; it skips where there is none."""
    return shared_folder
