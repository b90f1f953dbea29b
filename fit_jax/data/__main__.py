"""Describes tables, builds records of a task, counts what it holds, looks for shortcuts.

python -m fit_jax.data describe tickets.csv --out tickets.yaml
python -m fit_jax.data inspect --task ss [--prompts 3] [--json]
python -m fit_jax.data audit --config configs/ss_small.yaml [--html audit.html] [--json]
python -m fit_jax.data build --task smnli --out datasets
"""

import dataclasses
import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from fit_jax.cli import execute, run
from fit_jax.config import MIXTURE, Config, TokenizerConfig, load_config
from fit_jax.errors import InputError
from fit_jax.foreign import printable
from fit_jax.options import Parser, add_fields, new_file, new_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fit_jax.data.audit import SourceTable
    from fit_jax.data.balance import Balance
    from fit_jax.data.task import Task
    from fit_jax.focus.example import Example
    from fit_jax.focus.prompts import PromptEncoder


def add_options(parser: Parser) -> None:
    """The four actions, each with its options and the fields of the config that matter to it."""
    actions = parser.add_subparsers(title="commands")
    about = "Looks at every column of a table and writes a first description of it, to be read and changed."
    describe = actions.add_parser("describe", help="write a first description of a table", description=about)
    describe.add_argument("file", metavar="FILE", help="a table: .csv, .tsv, .jsonl or .parquet", type=Path)
    describe.add_argument(
        "--out", metavar="FILE", help="the description (default: own.yaml)", type=new_file("--out"), default="own.yaml"
    )
    describe.add_argument("--label", metavar="COLUMN", help="the column with the label, where another was taken for it")
    describe.set_defaults(run=_describe)
    build = actions.add_parser("build", help="build records", description="Builds records of a task.")
    build.add_argument(
        "--out",
        metavar="FOLDER",
        help="where they go (default: datasets)",
        type=new_folder("--out"),
        default="datasets",
    )
    inspect = actions.add_parser("inspect", help="count what a task holds", description="Counts what a task holds.")
    inspect.add_argument("--prompts", metavar="N", help="rendered prompts to show (default: 2)", type=int, default=2)
    audit = actions.add_parser("audit", help="look for shortcuts", description="Looks for shortcuts in a task.")
    audit.add_argument("--html", metavar="FILE", help="write a page too", type=new_file("--html"))
    for action, function in ((build, _build), (inspect, _inspect), (audit, _audit)):
        action.add_argument("--task", metavar="NAME", help="the task, for --task.name NAME")
        if action is not build:
            action.add_argument("--json", help="print JSON in place of tables", action="store_true")
        shown = ("seed", "task", "focus.place", "tokenizer", "train.sequence_length")
        add_fields(action, Config, shown=shown[:2] if action is build else shown)
        action.set_defaults(run=function)


def main(arguments: list[str]) -> int | None:
    """Runs the command."""
    return execute("python -m fit_jax.data", __doc__, add_options, arguments)


def _config(given: Namespace) -> Config:
    config = load_config(given.config + ([f"--task.name={given.task}"] if given.task is not None else []))
    if config.task.name == MIXTURE:
        raise InputError("task.name: a mixture is no data set; name one of its tasks with --task, and its own fields")
    return config


def _describe(given: Namespace) -> None:
    from fit_jax.data.describing import describe
    from fit_jax.data.inspection_tables import print_described
    from fit_jax.files import write_new

    found = describe(given.file, given.out, given.label)
    write_new(given.out, found.text)
    print_described(found)
    print(printable(f"{given.out}: read it, then python -m fit_jax.data inspect --task jsonl --task.file {given.out}"))


def _build(given: Namespace) -> None:
    config = _config(given)
    from fit_jax.data.builders import build_records

    folder = build_records(config.task, config.seed, given.out)
    print(f"{config.task.name}: {folder}")
    print(f"read it with --task.source array_record --task.data_dir {given.out}")


def _inspect(given: Namespace) -> None:
    if given.prompts < 0:
        raise InputError(f"--prompts {given.prompts}: must be 0 or more")
    config = _config(given)
    from fit_jax.data.summary import summarise
    from fit_jax.data.tasks import build_task
    from fit_jax.runs.resolve import resolve

    tokenizer = resolve(config).tokenizer
    task = build_task(config.task, config.seed)
    encoder = _encoder(task, config, tokenizer)
    summary = summarise(
        task, given.prompts, lambda example: encoder.render(example, "", example.candidates[example.label])
    )
    if given.json:
        print(printable(json.dumps(summary, indent=1, ensure_ascii=False)))
        return
    from fit_jax.data.inspection_tables import print_summary

    print_summary(summary)


def _audit(given: Namespace) -> None:
    config = _config(given)
    from fit_jax.data.audit import audit_task
    from fit_jax.data.inspection_tables import audit_page, print_audit, shown_prompts
    from fit_jax.runs.resolve import resolve

    tokenizer = resolve(config).tokenizer
    task, source, balance, notes = _audited(config)
    encoder = _encoder(task, config, tokenizer)

    def lengths(examples: "Sequence[Example]") -> list[int]:
        return [len(prompt) for prompt in encoder.encode(examples, [""] * len(examples))]

    audit = audit_task(task, lengths, config.train.sequence_length, source)
    audit = dataclasses.replace(audit, balance=balance, notes=notes)
    prompts = shown_prompts(task, encoder)
    if given.html is not None:
        from fit_jax.files import write_new

        write_new(given.html, audit_page(audit, prompts))
    if given.json:
        found = {**dataclasses.asdict(audit), "prompts": prompts}
        print(printable(json.dumps(found, indent=1, ensure_ascii=False)))
    else:
        print_audit(audit, prompts)
        if given.html is not None:
            print(f"page: {given.html}")


def _audited(config: Config) -> "tuple[Task, SourceTable | None, list[Balance], tuple[str, ...]]":
    """What to audit, the table it is of, what setting rho leaves out, and notes.

    Data of one's own are audited as the files hold them, before rho is set.
    """
    from fit_jax.data.audit import SourceTable
    from fit_jax.data.balance import balances_of
    from fit_jax.data.tasks import build_task
    from fit_jax.data.tasks.jsonl import raw_table

    if config.task.name != "jsonl":
        task = build_task(config.task, config.seed)
        return task, None, balances_of(task), tuple(task.notes)
    table = raw_table(config.task)
    source, notes = SourceTable(table.row, table.described), tuple(table.task.notes)
    try:
        task = build_task(config.task, config.seed)
    except InputError as error:  # which the audit helps to understand
        return table.task, source, [], (*notes, f"no splits can be drawn: {error}")
    return table.task, source, balances_of(task), tuple(dict.fromkeys((*notes, *task.notes)))


def _encoder(task: "Task", config: Config, tokenizer: TokenizerConfig) -> "PromptEncoder":
    """The prompt code of a run of this config, except for the bound on a prompt's length."""
    from fit_jax.data.vocabulary import task_tokenizer
    from fit_jax.focus.prompts import PromptEncoder

    return PromptEncoder(task_tokenizer(task, tokenizer), task.text, config.focus.place, config.tokenizer.template)


if __name__ == "__main__":
    run(main)
