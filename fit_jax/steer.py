"""Asks a trained model one text under each focus instruction; answers stand side by side.

    python -m fit_jax.steer RUN --text "..." [--focus A --ignore B]

Without --text and --slot, texts are read until the end of input; without --focus and --ignore, every focus type is
asked.
"""

from argparse import Namespace

from fit_jax.cli import execute, run
from fit_jax.config import Config
from fit_jax.errors import InputError
from fit_jax.foreign import quoted
from fit_jax.options import Parser, add_changed_inputs, add_checkpoint, add_fields, add_trust_code


def add_options(parser: Parser) -> None:
    """The run, the text, the focus, and the fields of the run's config that leave the model as it is."""
    from fit_jax.runs.run_folder import MAY_DIFFER

    parser.add_argument("folder", metavar="RUN", help="the run_dir of a training run")
    parser.add_argument("--part", metavar="NAME", help="the task of a mixture that is asked")
    parser.add_argument("--text", metavar="TEXT", help="the text")
    parser.add_argument(
        "--slot",
        metavar="NAME=TEXT",
        help="the text of a slot, for tasks whose input has several; may be repeated",
        action="append",
        default=[],
    )
    parser.add_argument("--focus", metavar="A,B", help="features to focus on, `core` included")
    parser.add_argument("--ignore", metavar="C", help="features to ignore")
    parser.add_argument(
        "--candidate",
        metavar="TEXT",
        help="an answer to choose among, in place of the task's own; may be repeated",
        action="append",
        default=[],
    )
    add_checkpoint(parser)
    add_changed_inputs(parser)
    add_trust_code(parser)
    add_fields(parser, Config, shown=MAY_DIFFER, hidden=("run_dir",), file=False)
    parser.set_defaults(run=_steer)


def main(arguments: list[str]) -> int | None:
    """Runs the command."""
    return execute("python -m fit_jax.steer", __doc__, add_options, arguments)


def _steer(given: Namespace) -> None:
    from fit_jax.evaluation.interactive import FocusQuestions, read_slots
    from fit_jax.evaluation.report import print_table
    from fit_jax.parallel.processes import start
    from fit_jax.runs.parts import one_task
    from fit_jax.runs.remote_folder import working_folder
    from fit_jax.runs.run import set_up, subject
    from fit_jax.runs.run_folder import opened_config

    text = _given_text(given)
    with working_folder(given.folder, writes=False) as folder:
        config = opened_config(folder, given.config)
        start(config.mesh)
        run = set_up(config, changed=given.changed_inputs, trust_code=given.trust_code)
        run = one_task(run, given.part, "name one with --part")
        questions = FocusQuestions(run.task, given.focus, given.ignore, given.candidate)
        asked = read_slots(questions.slots) if text is None else [questions.fill(text)]
        model = subject(run, given.checkpoint)
    for filled in asked:
        for line in questions.unknown(filled):
            print(f"note: {line}", flush=True)
        print_table(questions.table(model, filled))


def _given_text(given: Namespace) -> str | dict[str, str] | None:
    """The text of `--text`, those of `--slot` by their names, or None where neither is given."""
    if not given.slot:
        return given.text
    if given.text is not None:
        raise InputError("--text and --slot: give the text once")
    pairs = [pair.partition("=") for pair in given.slot]
    if bad := [name for name, equals, _ in pairs if not equals]:
        raise InputError(f"--slot {quoted(bad[0])}: holds no text; write --slot 'NAME=the text'")
    return {name: text for name, _, text in pairs}


if __name__ == "__main__":
    run(main)
