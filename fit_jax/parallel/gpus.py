"""GPUs as XLA's compiler wants them described, so that programs can be compiled for a card that is not there."""

from typing import NamedTuple


class Card(NamedTuple):
    """What a data sheet and the CUDA programming guide say of a card; sizes in bytes.

    Attributes:
        name: As the driver reports it.
        capability: Compute capability.
        cores: Streaming multiprocessors.
        lanes: fp32 units of each.
        threads: Resident threads of each.
        shared: Shared memory of each, of which a block may use all but 1 KiB.
        cache: L2.
        clock: GHz.
        memory: Of the device.
        bandwidth: Of that memory, bytes/s.
    """

    name: str
    capability: tuple[int, int]
    cores: int
    lanes: int
    threads: int
    shared: int
    cache: int
    clock: float
    memory: int
    bandwidth: int


CARDS = {
    "h100": Card(
        "NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 2048, 228 << 10, 50 << 20, 1.98, 84942979072, 3352320000000
    ),
    "a100": Card("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 2048, 164 << 10, 40 << 20, 1.41, 85100068864, 2039040000000),
    "l4": Card("NVIDIA L4", (8, 9), 58, 128, 1536, 100 << 10, 48 << 20, 2.04, 23659151360, 300096000000),
}


def target_config(kind: str) -> str:
    """The description of a card in `CARDS` as text of XLA's `GpuTargetConfigProto`."""
    card = CARDS[kind]
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: {48 << 10}
  shared_memory_per_block_optin: {card.shared - 1024}
  shared_memory_per_core: {card.shared}
  threads_per_core_limit: {card.threads}
  core_count: {card.cores}
  fpus_per_core: {card.lanes}
  block_dim_limit_x: {2**31 - 1}
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  memory_bandwidth: {card.bandwidth}
  l2_cache_size: {card.cache}
  clock_rate_ghz: {card.clock}
  device_memory_size: {card.memory}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  cuda_compute_capability {{ major: {card.capability[0]} minor: {card.capability[1]} }}
  dnn_version: "9.10.0"
  runtime_version: "13.0.0"
  driver_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{card.name}"
"""
