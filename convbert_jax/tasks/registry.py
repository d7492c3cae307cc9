"""Every task by its name, and the boards that are made of several.

A new task is one more entry of `TASKS`; the README shows one.
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

# Tasks that one name stands for.
TASK_GROUPS: dict[str, tuple[str, ...]] = {"all": tuple(GLUE_TASKS)}


def get_task(name: str) -> Task:
  """Returns a task.

  Raises:
    UserError: if there is none of that name.
  """
  if name not in TASKS:
    raise unknown_name("task", name, [*TASKS, *TASK_GROUPS])
  return TASKS[name]
