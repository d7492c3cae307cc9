"""Writes the archive that the GLUE server accepts, or checks one.

python -m experiments.submit --workdir=runs/glue --output=submission.zip
python -m experiments.submit --validate=submission.zip

The first collects the test predictions of a fine-tuning: the nine tasks of GLUE
and, from MNLI's model, the diagnostic set. The second checks any archive and
lists everything that the server would refuse.
"""

from absl import flags

from convbert_jax.errors import UserError
from convbert_jax.finetuning import submission
from experiments import command_line

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "DIR, the workdir of a fine-tuning of all GLUE tasks."
)
_OUTPUT = flags.DEFINE_string("output", None, "FILE, the archive to write.")
_FILL_MISSING = flags.DEFINE_bool(
  "fill_missing",
  False,
  "Whether to send the most frequent label, or the middle rating, for tasks"
  " without predictions.",
)
_VALIDATE = flags.DEFINE_string(
  "validate", None, "FILE, an archive to check instead of writing one."
)


def main() -> None:
  """Writes or checks an archive; prints a line for each file."""
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
  others = [f"--{name}" for name, value in given.items() if value is not None]
  if others:
    raise UserError(f"--validate only checks: leave out {', '.join(others)}")
  problems = submission.validate_submission(path)
  for problem in problems:
    print(problem)
  if problems:
    raise UserError(
      f"{path} has {len(problems)} problems, listed above; correct them all"
    )
  for line in submission.describe_submission(path):
    print(line)
  print(f"{path} is a valid submission")


if __name__ == "__main__":
  command_line.run(main)
