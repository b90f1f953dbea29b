"""`evaluate` in a job whose machines differ: no file of process 0 grows, and process 1 works in another folder."""

import os
import resource

import jax

from fit_jax import evaluate

LARGEST = 1000  # bytes of a file of process 0


def main(arguments: list[str]) -> int | None:
    """Runs the command."""
    if os.environ["JAX_PROCESS_ID"] == "0":
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, resource.RLIM_INFINITY))
        jax.config.update("jax_enable_compilation_cache", False)  # other tests' files would be cut off
    else:
        os.chdir("/")
    return evaluate.main(arguments)
