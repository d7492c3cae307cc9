"""Shows the results of fine-tuning, or compares those of two workdirs.

python -m experiments.report --workdir=runs/glue
python -m experiments.report --workdir=runs/glue --baseline=runs/scratch
"""

from absl import flags

from convbert_jax.errors import UserError
from convbert_jax.finetuning.results import read_results, results_markdown
from convbert_jax.finetuning.results_comparison import comparison_markdown
from experiments import command_line

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "DIR, where tasks were fine-tuned.", required=True
)
_BASELINE = flags.DEFINE_string(
  "baseline", None, "DIR, another workdir to compare with."
)


def main() -> None:
  """Prints the results of one workdir, or of two side by side."""
  results = read_results(_WORKDIR.value)
  if _BASELINE.value is None:
    print(results_markdown(results))
    return
  if _BASELINE.value == _WORKDIR.value:
    raise UserError("--baseline names the same folder; give another")
  print(
    comparison_markdown(
      {
        _WORKDIR.value: results,
        _BASELINE.value: read_results(_BASELINE.value),
      }
    )
  )


if __name__ == "__main__":
  command_line.run(main)
