"""Loading and saving a checkpoint (bf16, several files) beside transformers.

    python -m benchmarks.loading [--shape 1b|3b|7b] [--rounds 3]

The shape is one of 1.1 billion parameters, or Llama 3.2's of 3.6 (with an output layer of its own) or Llama 2's of 6.7
billion, of which loading alone is measured.
Here the model is split over 8 simulated devices. Each round is a fresh process, the two sides in turn; medians of the
rounds. Memory is the peak of the process's own pages (`RssAnon`; file pages are the kernel's to drop) above what it
held before plus the model itself. Prints a table and writes `runs/benchmarks/loading_SHAPE.json`.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.processes import in_turn, medians_of, own_bytes, watched

OUTPUT = Path("runs/benchmarks")
SMALL = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
SHAPES = {
    "1b": SMALL,
    "3b": {
        **SMALL,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "7b": {
        **SMALL,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
    },
}
FILE_BYTES = 500 * 10**6
DEVICES = 8
FILLER_BYTES = 8 * 10**9
COMMAND = (sys.executable, "-m", "benchmarks.loading", "--side")
SEVERAL = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}"}


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--side"]:
        print(json.dumps(SIDES[arguments[1]](Path(arguments[2]))))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / given.shape
        size = write_checkpoint(folder, SHAPES[given.shape])
        print(f"{size / 1e9:.2f} GB in {len(list(folder.glob('*.safetensors')))} files", flush=True)
        results = in_turn(SIDES, given.rounds, lambda side: [*COMMAND, side, str(folder)], SEVERAL)
    medians = medians_of(results)
    names = list(medians["here"])
    print(f"{'':14}" + "".join(f"{name:>11}" for name in names))
    for side, row in medians.items():
        print(f"{side:14}" + "".join(f"{row[name]:11.2f}" for name in names))
    ratios = {k: medians["here"][k] / medians["transformers"][k] for k in names if k.endswith("_s")}
    print("time here / transformers:", ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    figures = {"bytes": size, "medians": medians, "ratios": ratios, "rounds": results}
    (OUTPUT / f"loading_{given.shape}.json").write_text(json.dumps(figures, indent=2))


def write_checkpoint(folder: Path, shape_of: dict[str, Any]) -> int:
    import jax
    import ml_dtypes
    import numpy as np

    from fit_jax.models.families import config_from_hf, sources
    from fit_jax.models.tensor_files import write_tensors
    from fit_jax.models.weights import abstract_parameters
    from fit_jax.parallel.sharding import named_leaves

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(shape_of))
    config = config_from_hf(shape_of, "config.json")
    tensors = {}
    for path, leaf in named_leaves(abstract_parameters(config)[1]).items():
        for source in sources(path, config):
            shape = leaf.shape[1:] if path.startswith("blocks.") else leaf.shape
            tensors[source.name] = (shape[::-1] if source.transposed else shape, np.dtype(ml_dtypes.bfloat16))
    generator = np.random.default_rng(0)

    def drawn(shape: tuple[int, ...], dtype: np.dtype) -> Iterator[np.ndarray]:
        yield (generator.standard_normal(shape, np.float32) * 0.02).astype(dtype)

    write_tensors(folder, tensors, (partial(drawn, *tensor) for tensor in tensors.values()), FILE_BYTES)
    jax.clear_caches()
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def here(folder: Path) -> dict[str, float]:
    import jax
    import ml_dtypes
    import numpy as np
    from flax import nnx

    from fit_jax.models.config import ModelConfig
    from fit_jax.models.export import save_merged
    from fit_jax.models.model_folder import resolve_pretrained
    from fit_jax.models.weights import abstract_parameters, load_weights
    from fit_jax.parallel.sharding import lay_out_tree

    mesh = jax.make_mesh(
        (1, DEVICES, 1, 1), ("data", "fsdp", "tensor", "context"), axis_types=(jax.sharding.AxisType.Auto,) * 4
    )
    model = resolve_pretrained(ModelConfig(param_dtype="bfloat16", compute_dtype="bfloat16"), str(folder))
    graphdef, shapes = abstract_parameters(model, lambda tree: lay_out_tree(tree, mesh).shardings)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    state, load_s, load_bytes = measured(lambda: jax.block_until_ready(load_weights(model, shapes)))
    loaded = {"load_s": load_s, "load_mib": (load_bytes - size) / 2**20}
    if folder.name != "1b":
        return loaded
    with tempfile.TemporaryDirectory() as target:
        dtype = np.dtype(ml_dtypes.bfloat16)
        _, save_s, save_bytes = measured(
            lambda: save_merged(Path(target), nnx.merge(graphdef, state), dtype, FILE_BYTES)
        )
    return loaded | {"save_s": save_s, "save_mib": save_bytes / 2**20}


def transformers(folder: Path) -> dict[str, float]:
    import torch
    from transformers import AutoModelForCausalLM

    def load() -> Any:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        # Mapped files are read when first touched; the model is loaded when all of it has been.
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        return model

    model, load_s, load_bytes = measured(load)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    loaded = {"load_s": load_s, "load_mib": (load_bytes - size) / 2**20}
    if folder.name != "1b":
        return loaded
    with tempfile.TemporaryDirectory() as target:
        _, save_s, save_bytes = measured(lambda: model.save_pretrained(target, max_shard_size=FILE_BYTES))
    return loaded | {"save_s": save_s, "save_mib": save_bytes / 2**20}


SIDES: dict[str, Callable[[Path], dict[str, float]]] = {"here": here, "transformers": transformers}


def measured(work: Callable[[], Any]) -> tuple[Any, float, int]:
    """What `work` returns, its seconds, and how many bytes of its own the process held at most beyond the start."""
    touch_memory()
    before, start = own_bytes(), time.perf_counter()
    with watched() as peak:
        result = work()
        seconds = time.perf_counter() - start
    return result, seconds, peak.bytes - before


def touch_memory() -> None:
    """Has the machine hand out as many pages as a model takes, by a file written and removed.

    The first use of a page of a virtual machine's memory costs several times the work that is measured.
    """
    block = bytes(2**24)
    with tempfile.TemporaryFile() as file:
        for _ in range(FILLER_BYTES // len(block)):
            file.write(block)


if __name__ == "__main__":
    main(sys.argv[1:])
