"""Says where the time of a run went, over all its starts.

  python -m experiments.goodput --workdir=runs/small

Prints a line for each start and one for all, and draws `plots/goodput.png` in
the workdir. Goodput is the share of time in steps that counted.
"""

from absl import flags
from etils import epath

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.training import goodput, goodput_plot
from convbert_jax.training.events import EVENTS_FILE, read_events
from experiments import command_line

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "DIR, the run's folder.", required=True
)


def main() -> None:
  """Prints and draws."""
  workdir = _WORKDIR.value
  found = goodput.starts(read_events(workdir))
  if not found:
    raise UserError(
      f"{workdir} holds no {EVENTS_FILE}; name the folder of a run"
    )
  for number, start in enumerate(found, start=1):
    print(
      f"start {number}, steps {start.first_step} to {start.last_step},"
      f" {goodput.ending(start)}: {goodput.summary([start])}"
    )
  print(f"all: {goodput.summary(found)}")
  path = epath.Path(workdir) / "plots" / "goodput.png"
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_bytes(path, goodput_plot.figure(found))
  print(f"drawn: {path}")


if __name__ == "__main__":
  command_line.run(main)
