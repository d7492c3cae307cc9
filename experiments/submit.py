"""Writes the archive that the GLUE server takes, or checks one.

python -m experiments.submit --workdir=runs/glue --output=submission.zip
python -m experiments.submit --validate=submission.zip

The first takes the test predictions that fine-tuning left in the workdir, all
nine tasks of GLUE and, from MNLI's model, the diagnostic set. The second reads
any archive and names everything that the server would refuse.
"""

from absl import flags

from convbert_jax.errors import UserError
from convbert_jax.finetuning import submission
from experiments import command_line

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "DIR, the folder of a fine-tuning, with one for each task."
)
_OUTPUT = flags.DEFINE_string("output", None, "FILE, the archive to write.")
_FILL_MISSING = flags.DEFINE_bool(
  "fill_missing",
  False,
  "Whether to send the commonest label, or the middle rating, of tasks without"
  " predictions.",
)
_VALIDATE = flags.DEFINE_string(
  "validate", None, "FILE, an archive to check instead of writing one."
)


def main() -> None:
  """Writes or checks; one line on every file."""
  if _VALIDATE.value is not None:
    _check(_VALIDATE.value)
    return
  if _WORKDIR.value is None or _OUTPUT.value is None:
    raise UserError(
      "give --workdir and --output to write an archive, or --validate to check"
      " one; --help shows examples"
    )
  lines = submission.write_submission(
    _WORKDIR.value, _OUTPUT.value, _FILL_MISSING.value
  )
  for line in lines:
    print(line)
  print(f"wrote {_OUTPUT.value}")


def _check(path: str) -> None:
  given = {"workdir": _WORKDIR.value, "output": _OUTPUT.value}
  given["fill_missing"] = _FILL_MISSING.value or None
  beside = [f"--{name}" for name, value in given.items() if value is not None]
  if beside:
    raise UserError(f"--validate only checks: leave out {', '.join(beside)}")
  problems = submission.validate_submission(path)
  for problem in problems:
    print(problem)
  if problems:
    raise UserError(
      f"{path} has {len(problems)} problems, named above; mend them all"
    )
  for line in submission.describe_submission(path):
    print(line)
  print(f"{path} is as the server takes it")


if __name__ == "__main__":
  command_line.run(main)
