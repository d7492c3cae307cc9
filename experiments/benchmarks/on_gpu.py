"""Measures pre-training on the device at hand, within some minutes.

  python -m experiments.benchmarks.on_gpu --output=measured/h100

Sizes, lengths and settings are measured one after the other, each in a process
of its own, by `training_step`; then transformers, by `peers`, if it is there.
With --target=h100:1 the preflight's prediction stands beside each row. After
every measurement the table is written anew: what did not fit into the time is
named in it, and so is what failed, with its error.
"""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from convbert_jax import files
from convbert_jax.errors import UserError
from experiments import command_line

_OUTPUT = flags.DEFINE_string(
  "output", None, "DIR of the table and of all values.", required=True
)
_ROWS = flags.DEFINE_list(
  "rows",
  ["base:128:256", "small:128:512", "base:512:64", "small:512:128"],
  "SIZE:LENGTH:BATCH[,...], what to measure.",
)
_VARIANTS = flags.DEFINE_multi_string(
  "variant",
  [
    "model.kernels=reference",
    "model.kernels=fused",
    "model.kernels=fused model.scan_unroll=12 model.remat=none",
  ],
  "'FIELD=VALUE ...', settings to compare; may be given several times.",
)
_SETTINGS = flags.DEFINE_multi_string(
  "set",
  ["model.dtype=bfloat16"],
  "FIELD=VALUE, of all configs; may be given several times.",
)
_TARGET = flags.DEFINE_string(
  "target", None, "DEVICES to predict for, as h100:1; by default no prediction."
)
_PEER = flags.DEFINE_bool("peer", True, "Whether to measure transformers too.")
_MINUTES = flags.DEFINE_float(
  "minutes", 9.5, "N, when to stop.", lower_bound=0.1
)
_STEPS = flags.DEFINE_integer("steps", 15, "N, steps to time.", lower_bound=2)

_ROW = re.compile(r"([\w-]+):(\d+):(\d+)")
# Of the table: the title, the value of `training_step` or of the prediction,
# and the factor to the title's unit.
_COLUMNS = (
  ("step, ms", "step time", 1e3),
  ("tokens/s", "tokens per second", 1),
  ("model TFLOP/s", "model flop rate", 1e-3),
  ("of the matrix rate", "fraction of matmul rate", 1),
  ("peak memory, MiB", "peak memory", 1),
  ("compiled in, s", "compile time", 1),
  ("predicted, ms", "step_seconds", 1e3),
  ("predicted share", "share_of_rate", 1),
)
_ASK_DEVICE = (
  "import jax; d = jax.devices();"
  " print(f'{len(d)} x {d[0].device_kind}, JAX {jax.__version__}')"
)


@dataclasses.dataclass
class Row:
  """A line of the table.

  Attributes:
    name: what was measured.
    values: by the name of the measurement.
    problem: why there are none, or not all.
  """

  name: str
  values: dict[str, float] = dataclasses.field(default_factory=dict)
  problem: str = ""


class Sitting:
  """Programs run one after the other, until the time is up."""

  def __init__(self, minutes: float) -> None:
    self._end = time.monotonic() + 60 * minutes

  def measure(
    self, row: Row, program: str, arguments: Sequence[str]
  ) -> dict[str, Any]:
    """Returns what a program writes to --json; notes a failure in the row."""
    left = self._end - time.monotonic()
    if left <= 0:
      row.problem = "no time was left"
      return {}
    with tempfile.TemporaryDirectory() as folder:
      path = os.path.join(folder, "values.json")
      command = [sys.executable, "-m", program, *arguments, f"--json={path}"]
      print(f"{row.name}: {program.rpartition('.')[2]} ...", file=sys.stderr)
      try:
        done = subprocess.run(
          command, capture_output=True, text=True, timeout=left
        )
      except subprocess.TimeoutExpired:
        row.problem = "the time was up"
        return {}
      if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        row.problem = lines[-1]
      if not os.path.exists(path):
        return {}
      return json.loads(pathlib.Path(path).read_text())


def main() -> None:
  """Measures, and writes after each row."""
  for name in _ROWS.value:
    if not _ROW.fullmatch(name):
      raise UserError(f"--rows: {name!r} is not SIZE:LENGTH:BATCH")
  folder = pathlib.Path(_OUTPUT.value)
  folder.mkdir(parents=True, exist_ok=True)
  asked = subprocess.run(
    [sys.executable, "-c", _ASK_DEVICE], capture_output=True, text=True
  )
  device = (asked.stdout or asked.stderr).strip().rpartition("\n")[2]
  sitting, rows = Sitting(_MINUTES.value), []
  for name in _ROWS.value:
    for variant in _VARIANTS.value:
      rows.append(_measured(sitting, name, variant))
      _write(folder, device, rows, {})
  peers = {}
  if _PEER.value:
    row = Row(f"transformers, {_ROWS.value[0]}")
    peers = sitting.measure(
      row,
      "experiments.benchmarks.peers",
      [*_config_flags(_ROWS.value[0]), "--modes=train", "--rounds=5"],
    )
    if row.problem:
      rows.append(row)
  _write(folder, device, rows, peers)
  print(_table(device, rows, peers))


def _config_flags(name: str, *settings: str) -> list[str]:
  size, length, batch = name.split(":")
  return [
    f"--config=configs/pretrain.py:size={size},seq={length}",
    *(
      f"--config.{setting}"
      for setting in (f"batch_size={batch}", *_SETTINGS.value, *settings)
    ),
  ]


def _measured(sitting: Sitting, name: str, variant: str) -> Row:
  """Returns a row, its prediction included."""
  row = Row(f"{name}, {variant.replace('model.', '')}")
  config = _config_flags(name, *variant.split())
  found = sitting.measure(
    row,
    "experiments.benchmarks.training_step",
    [*config, f"--steps={_STEPS.value}"],
  )
  row.values = {key: value["value"] for key, value in found.items()}
  if _TARGET.value and not row.problem:
    found = sitting.measure(
      row, "experiments.preflight", [*config, f"--target={_TARGET.value}"]
    )
    if found:  # It ends with 1 where the step does not fit.
      row.problem = "" if found["fits"] else "predicted not to fit"
    row.values |= {key: found[key] for _, key, _ in _COLUMNS if key in found}
  return row


def _write(
  folder: pathlib.Path,
  device: str,
  rows: Sequence[Row],
  peers: dict[str, Any],
) -> None:
  values = {
    "device": device,
    "rows": [dataclasses.asdict(row) for row in rows],
    "peers": peers,
  }
  files.write_json(folder / "values.json", values)
  files.write_text(folder / "table.md", _table(device, rows, peers))


def _table(device: str, rows: Sequence[Row], peers: dict[str, Any]) -> str:
  """Returns all that was measured as Markdown."""
  titles = ("size:length:batch, settings", *(title for title, *_ in _COLUMNS))
  lines = [
    f"On {device}; {', '.join(_SETTINGS.value)}.",
    "",
    "| " + " | ".join(titles) + " |",
    "|" + "---|" * len(titles),
  ]
  for row in rows:
    cells = [
      f"{row.values[key] * factor:,.4g}" if key in row.values else ""
      for _, key, factor in _COLUMNS
    ]
    lines.append("| " + " | ".join([row.name, *cells]) + " |")
  problems = [f"- {row.name}: {row.problem}" for row in rows if row.problem]
  if problems:
    lines += ["", "Not measured, or not all of it:", "", *problems]
  if peers:
    lines += ["", "Beside transformers, by `experiments.benchmarks.peers`:", ""]
    lines += [
      f"- {name}: {found['value']:.4g} {found.get('unit', '')}".rstrip()
      for name, found in peers.items()
    ]
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  command_line.run(main)
