"""Shows the results of fine-tuning, or of a study.

  python -m experiments.report --workdir=runs/glue
  python -m experiments.report --workdir=runs/glue --baseline=runs/scratch
  python -m experiments.report --workdir=runs/studies --study=kernel_size

The second compares two workdirs. The third writes report.md, its pictures and
one page, index.html, to reports/kernel_size in the workdir, or to --output; a
study need not be finished.
"""

import os
import sys

from absl import flags

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.finetuning.results import read_results, results_markdown
from convbert_jax.finetuning.results_comparison import comparison_markdown
from convbert_jax.studies import kept, report
from convbert_jax.studies.scores import read_columns
from experiments import command_line, study_page

_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "DIR, where tasks were fine-tuned, or a study was run.",
  required=True,
)
_BASELINE = flags.DEFINE_string(
  "baseline", None, "DIR, another workdir to compare with."
)
_STUDY = flags.DEFINE_string(
  "study", None, "NAME of a study that experiments.sweep ran there."
)
_OUTPUT = flags.DEFINE_string("output", None, "DIR, for the report of a study.")


def main() -> None:
  """Prints the results of a workdir, or of two, or reports a study."""
  if _STUDY.value is not None:
    if _BASELINE.value is not None:
      raise UserError("--baseline compares fine-tunings; a study has its own")
    _report_study(_STUDY.value)
    return
  if _OUTPUT.value is not None:
    raise UserError("--output is for the report of a study; name the --study")
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


def _report_study(name: str) -> None:
  """Writes the report of a study, and prints its tables."""
  plan = kept.load(_WORKDIR.value, name)
  found = report.sections(
    _WORKDIR.value, plan, read_columns(_WORKDIR.value, plan)
  )
  folder = _OUTPUT.value or os.path.join(_WORKDIR.value, "reports", name)
  files.make_folder(folder)
  for section in found:
    for part in section.parts:
      if isinstance(part, report.Picture):
        files.write_bytes(os.path.join(folder, part.name), part.png)
  files.write_text(os.path.join(folder, "report.md"), report.markdown(found))
  page = study_page.write(os.path.join(folder, "index.html"), name, found)
  print(report.markdown(found[:2]))
  print(f"written: {page}", file=sys.stderr)


if __name__ == "__main__":
  command_line.run(main)
