"""Several processes as one program: start-up, who writes, and whose rows are whose."""

import os
import socket
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fit_jax.errors import InputError, RunFailed, explain
from fit_jax.foreign import shown
from fit_jax.parallel.config import MeshConfig
from fit_jax.parallel.rendezvous import is_address, rendezvous
from fit_jax.parallel.sharding import batch_sharding, row_shards


class HasAxes(Protocol):
    """A batch: a pytree of arrays that tells their dimensions by letter, in a pytree of the same structure."""

    @property
    def axes(self) -> Any:
        """As `batch_sharding` takes them."""
        ...


BatchType = TypeVar("BatchType", bound=HasAxes)
TreeType = TypeVar("TreeType")
ResultType = TypeVar("ResultType")


class Place(NamedTuple):
    """This process's place in a job: where process 0 listens, how many processes there are, and which this is."""

    address: str
    processes: int
    number: int


def keep_compiled() -> None:
    """Lets JAX keep compiled programs on the disk, where the next process finds them.

    They lie in `JAX_COMPILATION_CACHE_DIR` or under the user's cache folder.
    """
    if not jax.config.values["jax_compilation_cache_dir"]:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "fit_jax", "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def start(config: MeshConfig) -> None:
    """Sets JAX up for a command, before anything touches a device.

    Compiled programs are kept (`keep_compiled`). In a job of several processes, all of them are brought together.

    Args:
        config: `processes` says how many are to take part, `timeout` how long to wait for them, and for one that has
            fallen silent later.

    Raises:
        InputError: Processes are missing, or there are others than expected; or JAX cannot use the devices.
    """
    keep_compiled()
    place = _find_place(config)
    count = 1 if place is None else place.processes
    if config.processes not in (None, count):
        raise InputError(
            f"mesh.processes: {config.processes} expected, but the launcher started {count}; start that many (srun, a "
            "TPU slice, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID set for each), or change it"
        )
    if place is not None and place.processes > 1:
        rendezvous(*place, config.timeout)
        jax.config.update("jax_enable_preemption_service", False)  # it would hear SIGTERM in the place of `signals`
        jax.distributed.initialize(
            *place, initialization_timeout=config.timeout, heartbeat_timeout_seconds=config.timeout
        )
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter for `cuda` without a GPU
        asked = (
            f"JAX_PLATFORMS={shown(os.environ['JAX_PLATFORMS'])}"
            if os.environ.get("JAX_PLATFORMS")
            else "JAX's devices"
        )
        reason = shown(" ".join(str(error).split()).removeprefix("Unable to initialize backend ")) or "no such devices"
        raise InputError(
            f"{asked}: cannot be used ({reason}); unset JAX_PLATFORMS or name what this machine has, and end other "
            "programs on the devices"
        ) from error


# What launchers set for each process they start: SLURM, Open MPI, Kubernetes' indexed jobs, TPU slices.
_LAUNCHED = (
    "SLURM_PROCID",
    "OMPI_COMM_WORLD_RANK",
    "JOB_COMPLETION_INDEX",
    "TPU_WORKER_ID",
    "TPU_WORKER_HOSTNAMES",
    "MEGASCALE_NUM_SLICES",
)
# A host of a TPU slice may know its place from the cloud's metadata alone.
_TPU_DEVICES = ("/dev/accel0", "/dev/vfio/0")


def _find_place(config: MeshConfig) -> Place | None:
    """This process's place by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or by what the launcher
    has set; None where it was started alone."""
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    given = [os.environ.get(name) for name in names]
    if any(given):
        address, count, number = given
        if not (address and count and number and _is_count(count) and _is_count(number) and int(number) < int(count)):
            settings = ", ".join(f"{name}={shown(value)[:24]}" for name, value in zip(names, given))
            raise InputError(f"{settings}: all three are needed: host:port, how many, and which this is, from 0")
        if not is_address(address):
            raise InputError(f"JAX_COORDINATOR_ADDRESS={shown(address)}: is no host:port; write it as in 10.0.0.1:1234")
        return Place(address, int(count), int(number))
    launched = any(name in os.environ for name in _LAUNCHED) or any(map(os.path.exists, _TPU_DEVICES))
    if not launched and config.processes in (None, 1):
        return None
    # JAX offers its knowledge of launchers only inside `jax.distributed.initialize`, where a missing process is fatal.
    from jax._src.clusters import ClusterEnv

    found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, config.timeout)
    address, count, number, _ = found
    return None if address is None or count is None or number is None else Place(address, count, number)


def is_one_of_many() -> bool:
    """Whether the launcher has started this process as one of several, also before `start`."""
    place = _find_place(MeshConfig())
    return jax.distributed.is_initialized() or (place is not None and place.processes > 1)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def place_in_job() -> str:
    """Which process of a job of several this is, as the beginning of a line; empty where it is the only one."""
    if not jax.distributed.is_initialized():
        return ""
    # JAX's public way of asking waits for devices of the other processes, which may have failed.
    from jax._src.distributed import global_state

    return f"process {global_state.process_id} of {global_state.num_processes} on {socket.gethostname()}: "


def is_lead() -> bool:
    """Whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def rows_of_this_process(batch_size: int, mesh: Mesh) -> slice:
    """The rows of a global batch that this process's devices hold.

    Processes whose devices differ only along `tensor` or `context` hold the same rows.

    Raises:
        ValueError: The rows are not one contiguous block (devices of the mesh are not ordered by process).
    """
    held = _held(batch_size, mesh)
    start, stop = int(held[0]), int(held[-1]) + 1
    if stop - start != len(held):
        raise ValueError(f"process {jax.process_index()} holds rows {held.tolist()} of the batch, not one block")
    return slice(start, stop)


def maximum_over_processes(values: list[list[int]]) -> list[list[int]]:
    """The elementwise maximum of every process's table of integers; the tables are of one shape."""
    if jax.process_count() == 1 or not values:
        return values
    from jax.experimental import multihost_utils

    # JAX would cut 64-bit integers; their halves travel whole.
    halves = np.asarray(values, np.int64).view(np.int32)
    gathered = np.ascontiguousarray(multihost_utils.process_allgather(halves))
    return gathered.view(np.int64).max(axis=0).tolist()


def are_alike(number: int) -> bool:
    """Whether every process gives the same number."""
    ((most, fewest),) = maximum_over_processes([[number, -number]])
    return most == -fewest


def as_lead_finds(check: Callable[[], bool]) -> bool:
    """What a check of files finds on the lead, alike in every process: to others storage may show them later."""
    ((found,),) = maximum_over_processes([[int(is_lead() and check())]])
    return bool(found)


def on_lead(work: Callable[[], ResultType]) -> ResultType | None:
    """What `work` gives on the lead, which alone does it; None on the others, who wait for it.

    The work must not wait for other processes. A signal that ends the lead ends it at once, without a word to them.

    Raises:
        InputError, RunFailed: On the others, where the lead ends with an error that has the same status.
    """
    result, error = None, None
    if is_lead():
        try:
            result = work()
        except Exception as raised:
            error = raised
    try:
        ((status,),) = maximum_over_processes([[0 if error is None else explain(error)[0]]])
    finally:  # also where another process has ended meanwhile
        if error is not None:
            raise error
    if status:
        kind = InputError if status == 2 else RunFailed
        raise kind("process 0 of the job tells what is wrong; see its line, then start all of them again")
    return result


def on_all(work: Callable[[], ResultType]) -> ResultType:
    """What `work` gives on this process, where it succeeds on every one: else all would go on to do different things.

    The work must not wait for other processes.

    Raises:
        InputError: It ended with one on this process, or on another.
    """
    result, error = None, None
    try:
        result = work()
    except InputError as raised:
        error = raised
    ((failed,),) = maximum_over_processes([[int(error is not None)]])
    if error is not None:
        raise error
    if failed:
        raise InputError("another process of the job cannot; let all see the same files and have as much memory")
    return cast(ResultType, result)


class Agreement:
    """Whether any process asks for something, in all of them alike; known one call later, so that none waits."""

    def __init__(self) -> None:
        """Made by every process."""
        mesh = Mesh(np.array(jax.devices()).reshape(jax.process_count(), -1), ("process", "device"))
        self._each = NamedSharding(mesh, PartitionSpec("process"))
        self._any = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._asked: jax.Array | None = None

    def __call__(self, asks: bool) -> bool:
        """Whether any asked at the call before; every process makes as many calls, among the same other programs.

        Args:
            asks: Whether this one asks now.
        """
        with jax.transfer_guard("allow"):
            asked = jax.make_array_from_process_local_data(self._each, np.array([asks], np.int32))
            before, self._asked = self._asked, self._any(asked)
            return before is not None and bool(before)


def _held(size: int, mesh: Mesh) -> np.ndarray:
    """Which of `size` rows, split as a batch is, this process's devices hold; ascending."""
    owned = np.zeros(size, bool)
    for rows in batch_sharding(mesh, "B").addressable_devices_indices_map((size,)).values():
        owned[rows] = True
    return np.flatnonzero(owned)


def to_global(batch: BatchType, mesh: Mesh) -> BatchType:
    """This process's rows as global arrays on the mesh; an explicit, asynchronous transfer.

    Args:
        batch: NumPy arrays with this process's rows (`rows_of_this_process`) in the first dimension.
        mesh: The mesh.
    """
    parts = row_shards(mesh)
    held = len(_held(parts, mesh))

    def place(array: np.ndarray, axes: str) -> jax.Array:
        sharding = batch_sharding(mesh, axes)
        if jax.process_count() == 1:
            return jax.device_put(array, sharding)
        with jax.transfer_guard("allow"):  # JAX takes this way of asking for a transfer as none
            shape = (len(array) * parts // held, *array.shape[1:])
            return jax.make_array_from_process_local_data(sharding, array, shape)

    return jax.tree.map(place, batch, batch.axes)


def split_by_rows(tree: TreeType, mesh: Mesh) -> TreeType:
    """NumPy arrays that every process holds whole, as global arrays whose rows lie as those of a batch.

    Args:
        tree: The arrays; their rows are a multiple of `row_shards(mesh)`.
        mesh: The mesh.
    """
    sharding = batch_sharding(mesh, "B")
    return jax.tree.map(lambda array: jax.make_array_from_callback(array.shape, sharding, array.__getitem__), tree)
