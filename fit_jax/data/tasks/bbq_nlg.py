"""Task `bbq_nlg` (paper, section 4.4): BBQ answered in free text; the prompt does not list the answers."""

from dataclasses import replace

from fit_jax.config import TaskConfig
from fit_jax.data.task import Task
from fit_jax.data.tasks import bbq

TEXT = replace(
    bbq.TEXT,
    name="bbq_nlg",
    instruction="Answer the question in a few words.",
    input_template="Context: {context}\nQuestion: {question}",
    free=True,
)


def build(config: TaskConfig, seed: int) -> Task:
    """The examples of `bbq`, with this task's prompt."""
    return bbq.build(config, seed, TEXT)
