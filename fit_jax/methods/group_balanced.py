"""Group-balanced sampling: SFT(y) on batches in which every group is as frequent (Idrissi et al., 2022, "RWG").

"Simple data balancing achieves competitive worst-group-accuracy": examples are drawn so that each group
(`focus.example.group_of`: (s, y), or with multiple choice (s, whether y = y_s)) is expected equally often.

Differences: the paper draws with replacement; here a group gives its examples in passes (`data.orders.Balanced`), which
is the same in expectation. Its other balanced method, which leaves out what the large groups have too many of, is not
built.
"""

from fit_jax.config import Config
from fit_jax.data.orders import Balanced
from fit_jax.data.packing import Batch
from fit_jax.data.task import Task
from fit_jax.methods.groups import groups_of
from fit_jax.methods.method import TrainingMethod
from fit_jax.methods.plain import plain


def build(task: Task, config: Config) -> TrainingMethod[Batch]:
    """Groups are those of the training examples."""
    return plain(task, config, order=Balanced(groups_of(task.splits["train"].examples)))
