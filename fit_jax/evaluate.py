"""`python -m fit_jax.evaluate RUN`: asks a trained model every focus type of every split, and writes its report."""

from fit_jax.doors import checkpoint_option, split_folder, take_option
from fit_jax.errors import run_door

USAGE = "python -m fit_jax.evaluate RUN [--checkpoint best|last|STEP] [--evaluation.FIELD VALUE] [--mesh.FIELD VALUE]"


def main(arguments: list[str]) -> None:
    """Takes the run's folder, the checkpoint, and overrides of the config that leave the model as it is."""
    folder, rest = split_folder(arguments, USAGE)
    checkpoint, rest = take_option(rest, "checkpoint")
    from fit_jax.parallel.processes import start
    from fit_jax.training.report import evaluate_run
    from fit_jax.training.run import open_run

    start()
    evaluate_run(open_run(folder, rest), checkpoint_option(checkpoint))


if __name__ == "__main__":
    run_door(main)
