"""Shows the results of fine-tuning, and what one start bought over another.

python -m experiments.report --workdir=runs/glue
python -m experiments.report --workdir=runs/glue --baseline=runs/scratch
"""

from absl import flags

from convbert_jax.errors import UserError
from convbert_jax.finetuning import results as board
from experiments import command_line

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "DIR, where tasks were fine-tuned.", required=True
)
_BASELINE = flags.DEFINE_string(
  "baseline", None, "DIR, where they were fine-tuned from another start."
)


def main() -> None:
  """Prints the page of one workdir, or two beside each other."""
  results = board.read_results(_WORKDIR.value)
  if _BASELINE.value is None:
    print(board.markdown(results))
    return
  if _BASELINE.value == _WORKDIR.value:
    raise UserError("--baseline names the same folder; give another")
  print(
    board.compare_markdown(
      {
        _WORKDIR.value: results,
        _BASELINE.value: board.read_results(_BASELINE.value),
      }
    )
  )


if __name__ == "__main__":
  command_line.run(main)
