"""What an experiment is: a run, and the methods and seeds it is done with."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fit_jax.config import MIXTURE, Config
from fit_jax.config_files import overlaid, parse_config
from fit_jax.errors import InputError
from fit_jax.foreign import shown
from fit_jax.methods import TRAINED, TRAINING_FREE, UNINSTRUCTED, check_shows_instructions, known_methods

METHODS = (*TRAINING_FREE, *TRAINED)
# Options that each cell would override, and what decides instead.
DECIDED = {
    "--run.run_dir": "--run_dir, the experiment's folder, in which each cell has its own",
    "--run.seed": "--seeds",
    "--run.train.method": "--methods",
}


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Methods x seeds of one run. All methods see the same data and, where they train, the same budget."""

    # Folder of the experiment: its cells and its report. Starting again with the same folder goes on.
    run_dir: str = "runs/experiment"
    # Names of methods: those that run.train.method takes, and those that train nothing; by default all.
    methods: tuple[str, ...] = METHODS
    # Seeds of the run that each method is done with.
    seeds: tuple[int, ...] = (0, 1, 2)
    # The method that the others are compared with. Where run.train.steps is null its epochs set the steps of all; where
    # run.train.examples_per_step is null, what fills its rows sets the examples of a step.
    reference: str = "fit"
    # Solved examples in the prompts of few_shot.
    shots: int = 4
    # Folders of finished experiments with other models on this task, shown beside it: methods x models.
    beside: tuple[str, ...] = ()
    # Config files laid over the run, one a model: the experiment is done with each, in a folder of the file's name.
    models: tuple[str, ...] = ()
    # Options laid over the run, as on the command line, by a name: the experiment is done with each, in a folder of
    # that name, and a figure shows what becomes of focus accuracy.
    variants: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # What the variants differ in, as tables and figures call it.
    varied: str = ""
    # Several processes or machines work at it in one folder: each takes a cell that nobody has.
    shared: bool = False
    # The run; its run_dir, seed and train.method are set by each cell.
    run: Config = field(default_factory=Config)

    @staticmethod
    def check_file(mapping: Mapping[str, object], path: Path) -> None:
        """As `Config.check_file`."""
        Config.check_file(mapping, path, "run.")


def parse_experiment(arguments: list[str]) -> ExperimentConfig:
    """As `parse_config`; an option that each cell would override is an InputError too."""
    for argument in arguments:
        name = argument.partition("=")[0]
        if name in DECIDED:
            raise InputError(f"{name}: is set by each cell of the experiment; what decides is {DECIDED[name]}")
    return parse_config(ExperimentConfig, arguments)


def parts_of(config: ExperimentConfig) -> list[ExperimentConfig]:
    """The experiment with each of its models or variants; itself where it names none.

    Raises:
        InputError: A file of a model is missing or wrong, two have one name, a variant's options are wrong or its name
            is none of a folder, or there are models and variants.
    """
    overlays = [(Path(file).stem, ["--config", file]) for file in config.models]
    overlays += [(name, list(options)) for name, options in config.variants.items()]
    if not overlays:
        return [config]
    if config.models and config.variants:
        raise InputError("variants: stand beside models; lay the model over `run`, or leave one of them out")
    _check_variants(config)
    names = [name for name, _ in overlays]
    if len(set(names)) < len(names):
        raise InputError(f"models: {', '.join(names)}: two files have one name, and so would their folders")
    folders = [str(Path(config.run_dir) / name) for name in names]
    return [
        replace(
            config,
            models=(),
            variants={},
            run_dir=folder,
            beside=(*config.beside, *folders[:number]),
            run=_overlaid(config, name, options),
        )
        for number, (folder, (name, options)) in enumerate(zip(folders, overlays))
    ]


def _overlaid(config: ExperimentConfig, name: str, options: list[str]) -> Config:
    try:
        return overlaid(config.run, options)
    except InputError as error:
        if name in config.variants:
            error.args = (f"variants: {name}: {error}",)
        raise


def _check_variants(config: ExperimentConfig) -> None:
    for name, options in config.variants.items():
        if not re.fullmatch(r"\w[\w.-]{0,60}", name):
            raise InputError(f"variants: {shown(name)}: write letters, digits, dots, dashes and underscores")
        for option in options:
            field_name = option.partition("=")[0].removeprefix("--")
            if f"--run.{field_name}" in DECIDED:
                raise InputError(f"variants: {name}: --{field_name} is set by each cell; vary another field")
    if config.variants and not config.varied:
        raise InputError("varied: say what the variants differ in; tables and figures call it so")


def check_experiment(config: ExperimentConfig) -> None:
    """Checks the lists, and the run of each model or variant.

    Raises:
        InputError: As `parts_of`; an unknown or repeated method, no seed or an impossible one, a reference that is not
            among the methods, no shots; in a run decoys, earlier turns or combinations of features to report, earlier
            turns to train on where a method shows no instruction, or a mixture.
    """
    for method in config.methods:
        if method not in METHODS and method not in known_methods():
            raise InputError(f"methods: there is no method {method!r}; known are {', '.join(known_methods())}")
    for name, values in (("methods", config.methods), ("seeds", config.seeds)):
        if not values or len(set(values)) < len(values):
            raise InputError(f"{name}: {list(values)} must name at least one, and each once")
    for seed in config.seeds:
        replace(config.run, run_dir=config.run_dir, seed=seed).check()
    if config.reference not in config.methods:
        raise InputError(f"reference: {config.reference!r} is not among the methods {', '.join(config.methods)}")
    if config.shots < 1:
        raise InputError(f"shots: {config.shots}; few_shot needs at least one")
    for part in parts_of(config):
        _check_run(part.run, config.methods)


def _check_run(run: Config, methods: Sequence[str]) -> None:
    if run.task.name == MIXTURE:
        raise InputError("run.task.name: an experiment is about one task; train a mixture with python -m fit_jax.train")
    for name in ("decoys", "turns"):
        if getattr(run.evaluation, name):
            raise InputError(
                f"run.evaluation.{name}: an experiment does not report them; evaluate the run of a cell with "
                f"`python -m fit_jax.evaluate CELL --evaluation.{name} true`"
            )
    for name in ("combinations", "held_out"):
        if getattr(run.focus, name):
            raise InputError(
                f"run.focus.{name}: an experiment reports one feature at a time; train a run of its own with "
                "python -m fit_jax.train"
            )
    for method in methods:
        if method in UNINSTRUCTED:
            check_shows_instructions(run.focus, method, "run.")
