"""Asks a trained model every focus type of every split, and writes a report.

What is asked otherwise than after training goes to RUN/evaluations/NAME; the training's own report stays as it is.
With --perplexity or --harness it measures instead what the tuning did to the language model, before and after, with
--sensitivity whether its answers lean on a spurious feature, with --inside where the model switches between features,
and writes that to RUN/evaluations/NAME too.
"""

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fit_jax.cli import execute, run
from fit_jax.config import Config
from fit_jax.options import Parser, add_changed_inputs, add_checkpoint, add_fields, add_trust_code

# Options that measure something else than focus accuracy.
MEASURES = ("perplexity", "harness", "sensitivity", "inside")


def add_options(parser: Parser) -> None:
    """The run, what to measure, and the fields of its config that leave the model as it is."""
    from fit_jax.runs.run_folder import MAY_DIFFER

    parser.add_argument("folder", metavar="RUN", help="the run_dir of a training run")
    add_checkpoint(parser)
    about = "keep the report in RUN/evaluations/NAME (default: named after what differs from the training's report)"
    parser.add_argument("--name", metavar="NAME", help=about)
    add_changed_inputs(parser)
    add_trust_code(parser)
    parser.add_argument("--perplexity", metavar="FILE", help="perplexity of the text of a file", type=Path)
    parser.add_argument("--harness", metavar="TASK,TASK", help="tasks of lm-evaluation-harness")
    about = "whether answers change with a spurious feature alone, before and after tuning, on a test split such as iid"
    parser.add_argument("--sensitivity", metavar="SPLIT", help=about)
    about = "after which layer the model switches between core and spurious features, on a test split such as iid"
    parser.add_argument("--inside", metavar="SPLIT", help=about)
    add_fields(parser, Config, shown=MAY_DIFFER, hidden=("run_dir",), file=False)
    parser.set_defaults(run=_evaluate)


def main(arguments: list[str]) -> int | None:
    """Runs the command."""
    return execute("python -m fit_jax.evaluate", __doc__, add_options, arguments)


def _evaluate(given: Namespace) -> None:
    from fit_jax.parallel.processes import start
    from fit_jax.runs.before_after import harness_tasks, report_harness, report_perplexity, text_of
    from fit_jax.runs.evaluating import dropped_if_fruitless, evaluate_run, evaluation_folder, evaluation_name
    from fit_jax.runs.look_inside import check_inside, report_inside
    from fit_jax.runs.remote_folder import working_folder
    from fit_jax.runs.run import set_up
    from fit_jax.runs.run_folder import EVALUATIONS, locked, opened_config
    from fit_jax.runs.sensitivity import check_sensitivity, report_sensitivity

    with working_folder(given.folder) as folder:
        config = opened_config(folder, given.config)
        start(config.mesh)
        with locked(folder):
            run = set_up(config, changed=given.changed_inputs, trust_code=given.trust_code)
            measures = {name: str(what) for name in MEASURES if (what := getattr(given, name)) is not None}
            files = {measure: Path(what).name for measure, what in measures.items()}
            name = given.name or evaluation_name(run, given.checkpoint, files)
            if name is None or not measures:
                evaluate_run(run, given.checkpoint, name)
                return
            # What is asked for is read before the evaluation gets a folder.
            reports: list[Callable[[Path], object]] = []
            if given.perplexity is not None:
                text = text_of(given.perplexity)
                reports.append(partial(report_perplexity, run, given.checkpoint, given.perplexity, text))
            if given.harness is not None:
                tasks = harness_tasks(given.harness.split(","))
                reports.append(partial(report_harness, run, given.checkpoint, tasks))
            if given.sensitivity is not None:
                check_sensitivity(run, given.sensitivity)
                reports.append(partial(report_sensitivity, run, given.checkpoint, given.sensitivity))
            if given.inside is not None:
                check_inside(run, given.inside)
                reports.append(partial(report_inside, run, given.checkpoint, given.inside))
            with dropped_if_fruitless(run.folder / EVALUATIONS / name):
                place = evaluation_folder(run, given.checkpoint, name, measures)
                for report in reports:
                    report(place)


if __name__ == "__main__":
    run(main)
