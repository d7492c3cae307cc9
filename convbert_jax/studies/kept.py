"""What a folder of studies keeps of each: its question and its runs."""

import dataclasses
import json
from collections.abc import Mapping, Sequence

from etils import epath

from convbert_jax import files
from convbert_jax.errors import UserError, unknown_name
from convbert_jax.studies.plan import Cost, Plan, Run
from convbert_jax.studies.study import Study

_FOLDER = "studies"


@dataclasses.dataclass(frozen=True)
class KeptPlan:
  """A study as it was started last.

  Attributes:
    study: what was asked.
    runs: what answers it.
    costs: of a pre-training, by variant.
  """

  study: Study
  runs: Sequence[Run]
  costs: Mapping[str, Cost]


def keep(workdir: str, plan: Plan) -> None:
  """Writes a study and its runs to the studies' folder."""
  folder = files.make_folder(epath.Path(workdir) / _FOLDER)
  fields = {
    "study": dataclasses.asdict(plan.study),
    "runs": [dataclasses.asdict(run) for run in plan.runs],
    "costs": {k: dataclasses.asdict(v) for k, v in plan.costs.items()},
  }
  files.write_json(folder / f"{plan.study.name}.json", fields)


def load(workdir: str, name: str) -> KeptPlan:
  """Reads what `keep` wrote.

  Raises:
    UserError: if that study was not started there.
  """
  folder = epath.Path(workdir) / _FOLDER
  path = folder / f"{name}.json"
  if not path.exists():
    there = [found.stem for found in folder.glob("*.json")]
    if not there:
      raise UserError(
        f"{workdir} holds no studies; experiments.sweep makes them"
      )
    raise unknown_name(f"study in {workdir}:", name, there)
  fields = json.loads(path.read_text())
  return KeptPlan(
    Study(**fields["study"]),
    [
      Run(**{**run, "settings": tuple(run["settings"])})
      for run in fields["runs"]
    ],
    {name: Cost(**cost) for name, cost in fields["costs"].items()},
  )
