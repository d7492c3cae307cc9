"""Draws the curves of several runs into one picture.

  python -m experiments.curves --runs=runs/small,runs/calm --output=curves.png
  python -m experiments.curves --runs=runs/seed_0,runs/seed_1 \\
    --metrics=discriminator_auc,gradient_norm --output=curves.png

A metric that was evaluated is drawn as held out, another one as in training.
"""

from absl import flags

from convbert_jax.errors import UserError
from convbert_jax.training import plots
from experiments import command_line

_RUNS = flags.DEFINE_list("runs", None, "DIR, ... of runs.", required=True)
_METRICS = flags.DEFINE_list(
  "metrics",
  ["generator_loss", "discriminator_auc", "gradient_norm"],
  "NAME, ... as in metrics.jsonl, without `eval_`.",
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "FILE, the picture, PNG.", required=True
)


def main() -> None:
  """Draws and says where."""
  for name, values in (("runs", _RUNS.value), ("metrics", _METRICS.value)):
    if not values or len(set(values)) < len(values):
      raise UserError(
        f"--{name}={','.join(values)}: name each once, at least one"
      )
  plots.draw_comparison(_RUNS.value, _OUTPUT.value, _METRICS.value)
  print(f"drawn: {_OUTPUT.value}")


if __name__ == "__main__":
  command_line.run(main)
