"""`python -m fit_jax.train`: trains the run that a config describes, resumes it, and reports on it.

Options are `--config FILE` and any field of the config, `--section.field VALUE`; without any it runs the demo.
"""

import sys

from fit_jax.config import load_config
from fit_jax.errors import run_command


def main(arguments: list[str]) -> int:
    """Takes `--config FILE` and `--section.field value`; `--help` explains both."""
    config = load_config(arguments, __doc__)
    from fit_jax.parallel.processes import failing_together, is_lead, start
    from fit_jax.runs.evaluating import evaluate_run, has_report
    from fit_jax.runs.run import set_up
    from fit_jax.runs.run_folder import claimed
    from fit_jax.runs.trainer import Ending, train
    from fit_jax.training.loop import TrainingFailed

    start(config.mesh)
    with failing_together(), claimed(config):
        run = set_up(config, keep_tokenizer=True)
        try:
            ending = train(run)
        except TrainingFailed as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        if is_lead():
            print(f"{run.folder}: {ending.value}", flush=True)
        # A report made before the last step, of a run that was told to stop, is of another model.
        trained = ending in (Ending.ALL_STEPS, Ending.PATIENCE)
        if trained or (ending is Ending.ALREADY and not has_report(run)):
            evaluate_run(run)
    return 0


if __name__ == "__main__":
    run_command(main)
