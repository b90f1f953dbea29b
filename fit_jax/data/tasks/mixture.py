"""Task `mixture`: any tasks and data of one's own, trained on together in chosen shares; some may be held out."""

from fit_jax.config import TaskConfig
from fit_jax.data.mixture import NAME, mix
from fit_jax.data.task import Task
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError
from fit_jax.foreign import shown


def build(config: TaskConfig, seed: int) -> Task:
    """The mixture of the tasks in `config.parts`."""
    config.check()
    parts: dict[str, Task] = {}
    for number, part in enumerate(config.each):
        try:
            task = build_task(part, seed)
        except InputError as error:
            raise InputError(f"task.parts.{number}: {error}", error.usage) from error
        if task.text.name in parts:
            raise InputError(
                f"task.parts: two are called {task.text.name!r}; join them, or give own data another name in its "
                "description"
            )
        if not NAME.fullmatch(task.text.name):
            raise InputError(
                f"task.parts: {shown(task.text.name)}: names a folder of the report; in the description's `name` write "
                "letters, digits, dots, dashes and underscores"
            )
        parts[task.text.name] = task
    return mix(parts, {name: part.weight for name, part in zip(parts, config.parts)})
