"""All tasks by name, and names that stand for several tasks.

A new task is one more entry of `TASKS`; docs/finetuning.md shows one.
"""

from convbert_jax.errors import unknown_name
from convbert_jax.tasks.glue import GLUE_TASKS
from convbert_jax.tasks.multiple_choice import MULTIPLE_CHOICE_TASKS
from convbert_jax.tasks.question_answering import QA_TASKS
from convbert_jax.tasks.tagging import TAGGING_TASKS
from convbert_jax.tasks.task import Task

TASKS: dict[str, Task] = {
  **GLUE_TASKS,
  **QA_TASKS,
  **TAGGING_TASKS,
  **MULTIPLE_CHOICE_TASKS,
}

# Names that stand for several tasks.
TASK_GROUPS: dict[str, tuple[str, ...]] = {"all": tuple(GLUE_TASKS)}


def get_task(name: str) -> Task:
  """Returns a task.

  Raises:
    UserError: if there is no task of that name.
  """
  if name not in TASKS:
    raise unknown_name("task", name, [*TASKS, *TASK_GROUPS])
  return TASKS[name]
