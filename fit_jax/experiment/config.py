"""What an experiment is: a run, and the methods and seeds it is done with."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from fit_jax.config import Config
from fit_jax.config_files import overlaid, parse_config
from fit_jax.errors import InputError
from fit_jax.methods import TRAINED, TRAINING_FREE, known_methods

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
    # Several processes or machines work at it in one folder: each takes a cell that nobody has.
    shared: bool = False
    # The run; its run_dir, seed and train.method are set by each cell.
    run: Config = field(default_factory=Config)


def parse_experiment(arguments: list[str]) -> ExperimentConfig:
    """As `parse_config`; an option that each cell would override is an InputError too."""
    for argument in arguments:
        name = argument.partition("=")[0]
        if name in DECIDED:
            raise InputError(f"{name}: is set by each cell of the experiment; what decides is {DECIDED[name]}")
    return parse_config(ExperimentConfig, arguments)


def by_model(config: ExperimentConfig) -> list[ExperimentConfig]:
    """The experiment with each of its models; itself where it names none.

    Raises:
        InputError: A file of a model is missing or wrong, or two have one name.
    """
    if not config.models:
        return [config]
    names = [Path(file).stem for file in config.models]
    if len(set(names)) < len(names):
        raise InputError(f"models: {', '.join(names)}: two files have one name, and so would their folders")
    folders = [str(Path(config.run_dir) / name) for name in names]
    return [
        replace(
            config,
            models=(),
            run_dir=folder,
            beside=(*config.beside, *folders[:number]),
            run=overlaid(config.run, file),
        )
        for number, (folder, file) in enumerate(zip(folders, config.models))
    ]


def check_experiment(config: ExperimentConfig) -> None:
    """Checks the lists.

    Raises:
        InputError: An unknown or repeated method, no seed or an impossible one, a reference that is not among the
            methods, no shots, or decoys.
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
    if config.run.evaluation.decoys:
        raise InputError(
            "run.evaluation.decoys: an experiment does not report them; evaluate the run of a cell with "
            "`python -m fit_jax.evaluate CELL --evaluation.decoys true`"
        )
    if config.shots < 1:
        raise InputError(f"shots: {config.shots}; few_shot needs at least one")
