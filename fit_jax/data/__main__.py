"""`python -m fit_jax.data build|inspect|audit`: builds records of a task, counts what it holds, looks for shortcuts.

    python -m fit_jax.data inspect --task ss [--prompts 3] [--json]
    python -m fit_jax.data audit --config configs/ss_small.yaml [--html audit.html] [--json]
    python -m fit_jax.data build --task smnli --out datasets

    --task NAME    the task, for `--task.name NAME`
    --prompts N    inspect: rendered prompts to show (2)
    --html FILE    audit: writes a page too
    --out FOLDER   build: where the records go (datasets)
    --json         inspect, audit: prints JSON in place of tables

Every command also takes `--config FILE` and overrides such as `--task.rho_train 0.9` and `--seed 1`; `python -m
fit_jax.train --help` lists their fields.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from fit_jax.config import Config, load_config
from fit_jax.data.task import Task
from fit_jax.data.tasks import build_task
from fit_jax.doors import new_file, take_flag, take_option
from fit_jax.errors import InputError, run_command
from fit_jax.focus.prompts import PromptEncoder

# The options of each command besides `--task`, and `--json` of those that print tables.
COMMANDS = {"build": ("out",), "inspect": ("prompts",), "audit": ("html",)}


def main(arguments: list[str]) -> None:
    """Runs one command."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    command, *rest = arguments or [""]
    if command not in COMMANDS:
        raise InputError(f"fit_jax.data: no command {command!r}; use one of {', '.join(COMMANDS)}, or --help")
    task, rest = take_option(rest, "task")
    as_text, rest = (False, rest) if command == "build" else take_flag(rest, "json")
    options = {}
    for name in COMMANDS[command]:
        options[name], rest = take_option(rest, name)
    config = load_config(rest + (["--task.name", task] if task is not None else []))
    if command == "build":
        _build(config, Path(options["out"] or "datasets"))
    elif command == "inspect":
        _inspect(config, options["prompts"] or "2", as_text)
    else:
        _audit(config, new_file(options["html"], "--html"), as_text)


def _build(config: Config, out: Path) -> None:
    from fit_jax.data.builders import build_records

    folder = build_records(config.task, config.seed, out)
    print(f"{config.task.name}: {folder}")
    print(f"read it with --task.source array_record --task.data_dir {out}")


def _inspect(config: Config, prompts: str, as_text: bool) -> None:
    from fit_jax.data.summary import summarise

    task = build_task(config.task, config.seed)
    if not prompts.isdecimal():
        raise InputError(f"--prompts {prompts!r} is no number")
    encoder = _encoder(task, config)
    summary = summarise(
        task, int(prompts), lambda example: encoder.render(example, "", example.candidates[example.label])
    )
    if as_text:
        json.dump(summary, sys.stdout, indent=1, ensure_ascii=False)
        print()
        return
    from fit_jax.data.inspection_tables import print_summary

    print_summary(summary)


def _audit(config: Config, html: Path | None, as_text: bool) -> None:
    from fit_jax.data.audit import audit_task
    from fit_jax.data.inspection_tables import audit_page, print_audit, shown_prompts

    if config.task.name == "jsonl":  # what the files hold, before rho is set
        from fit_jax.data.tasks.jsonl import as_it_came

        task = as_it_came(config.task)
    else:
        task = build_task(config.task, config.seed)
    encoder = _encoder(task, config)

    def lengths(examples: Any) -> list[int]:
        return [len(prompt) for prompt in encoder.encode(examples, [""] * len(examples))]

    audit = audit_task(task, lengths, config.train.sequence_length)
    prompts = shown_prompts(task, encoder)
    if html is not None:
        from fit_jax.files import write_text

        write_text(html, audit_page(audit, prompts))
    if as_text:
        json.dump({**dataclasses.asdict(audit), "prompts": prompts}, sys.stdout, indent=1, ensure_ascii=False)
        print()
    else:
        print_audit(audit, prompts)
        if html is not None:
            print(f"page: {html}")


def _encoder(task: Task, config: Config) -> PromptEncoder:
    from fit_jax.data.vocabulary import task_tokenizer

    tokenizer = task_tokenizer(task, config.tokenizer)
    return PromptEncoder(tokenizer, task.text, config.focus.place, config.tokenizer.template)


if __name__ == "__main__":
    run_command(main)
