"""The archive that the GLUE server accepts, written and checked."""

import collections
import dataclasses
import io
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence

from etils import epath

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.tasks.glue import GLUE_TASKS
from convbert_jax.tasks.task_files import read_lines

HEADER = "index\tprediction"

# A real archive has a tenth of this, compressed or not.
MAX_BYTES = 1 << 24
_MAX_ENTRIES = 100
# Reported of one file: a wrong column would be 390,965 problems.
_MAX_PROBLEMS = 10
# Fixed, so that the same predictions always give the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclasses.dataclass(frozen=True)
class Sheet:
  """One file of the archive.

  Attributes:
    name: of the file in the archive.
    task: whose predictions it holds.
    num_rows: number of rows in the official test set.
    filler: takes the place of missing predictions: the most frequent label,
      or the middle of the ratings.
    split: of the task.
  """

  name: str
  task: str
  num_rows: int
  filler: str
  split: str = "test"

  @property
  def labels(self) -> tuple[str, ...]:
    """The words that a prediction may be; () for ratings."""
    return GLUE_TASKS[self.task].labels

  @property
  def source(self) -> str:
    """The path of its predictions below a workdir."""
    return f"{self.task}/predictions/{self.split}.tsv"


SHEETS = (
  Sheet("CoLA.tsv", "cola", 1_063, "1"),
  Sheet("SST-2.tsv", "sst2", 1_821, "1"),
  Sheet("MRPC.tsv", "mrpc", 1_725, "1"),
  Sheet("STS-B.tsv", "stsb", 1_379, "2.5"),
  Sheet("QQP.tsv", "qqp", 390_965, "0"),
  Sheet("MNLI-m.tsv", "mnli", 9_796, "entailment", "test_matched"),
  Sheet("MNLI-mm.tsv", "mnli", 9_847, "entailment", "test_mismatched"),
  Sheet("QNLI.tsv", "qnli", 5_463, "entailment"),
  Sheet("RTE.tsv", "rte", 3_000, "entailment"),
  Sheet("WNLI.tsv", "wnli", 146, "0"),
  Sheet("AX.tsv", "mnli", 1_104, "entailment", "ax"),
)


def write_submission(
  workdir: str, path: str, fill_missing: bool = False
) -> list[str]:
  """Writes the archive of a workdir's test predictions.

  Args:
    workdir: holds `<task>/predictions/<split>.tsv`.
    path: of the archive. The same predictions always give the same bytes.
    fill_missing: write each sheet's `filler` where there are no predictions.

  Returns:
    A line about each file of the archive.

  Raises:
    UserError: naming all tasks without predictions; naming file and row, if
      the server would refuse a prediction; or if the archive cannot be
      written.
  """
  root = epath.Path(workdir)
  if not root.is_dir():
    raise UserError(f"no folder {workdir}; give the --workdir of a fine-tuning")
  missing = [sheet for sheet in SHEETS if not (root / sheet.source).exists()]
  if len(missing) == len(SHEETS):
    raise UserError(f"{workdir} has no GLUE predictions; fine-tune tasks first")
  if missing and not fill_missing:
    names = ", ".join(f"{s.name} ({s.source})" for s in missing)
    raise UserError(
      f"{workdir} has no predictions for {names}; fine-tune these tasks with"
      " their test files in the data folder, or give --fill_missing to send the"
      " most frequent label instead"
    )
  lines, texts = [], {}
  for sheet in SHEETS:
    if sheet in missing:
      values = [sheet.filler] * sheet.num_rows
      note = " (filled in: no predictions)"
    else:
      values, note = (
        _read_predictions(os.fspath(root / sheet.source), sheet),
        "",
      )
    rows = "".join(f"{i}\t{value}\n" for i, value in enumerate(values))
    texts[sheet.name] = f"{HEADER}\n{rows}"
    lines.append(_describe(sheet, values) + note)
  _write_archive(epath.Path(path), texts)
  return lines


def validate_submission(path: str) -> list[str]:
  """Returns what the GLUE server would refuse in an archive.

  Files are unpacked in memory, and not at all if they are too large.

  Args:
    path: of the archive.

  Returns:
    A line about each problem, with file and row; empty for a valid archive.

  Raises:
    UserError: if the archive cannot be read.
  """
  return _inspect(path)[1]


def describe_submission(path: str) -> list[str]:
  """Returns a line about each file of a valid archive.

  Args:
    path: of the archive.

  Raises:
    UserError: if it cannot be read or is not valid.
  """
  lines, problems = _inspect(path)
  if problems:
    raise UserError(f"{path}: {_first_of(problems)}")
  return lines


def _read_predictions(path: str, sheet: Sheet) -> list[str]:
  lines = read_lines(path)
  problems = list(_problems(sheet, lines))
  if problems:
    raise UserError(
      f"{path}, {_first_of(problems)}; predict the official test set again"
    )
  return [line.split("\t")[1] for line in lines[1:]]


def _first_of(problems: Sequence[str]) -> str:
  more = len(problems) - 1
  return problems[0] + (f" (and {more} more)" if more else "")


def _problems(sheet: Sheet, lines: Sequence[str]) -> Iterator[str]:
  """Yields what is wrong with each row of a sheet, counted from 1."""
  if not lines or lines[0] != HEADER:
    found = repr(lines[0][:40]) if lines else "nothing"
    yield f"row 1: the header is {found}, not 'index\\tprediction'"
  num_rows = max(len(lines) - 1, 0)
  if num_rows != sheet.num_rows:
    yield (
      f"row {num_rows + 1}: ends after {num_rows:,} predictions, the"
      f" official test set has {sheet.num_rows:,}"
    )
  for number, line in enumerate(lines[1:]):
    index, tab, value = line.partition("\t")
    if not tab or "\t" in value:
      yield f"row {number + 2}: {line[:40]!r} is not an index, a tab, a value"
      continue
    if index != str(number):
      yield f"row {number + 2}: index {index[:40]!r}, not {number}"
    wrong = _wrong_value(sheet, value)
    if wrong:
      yield f"row {number + 2}: {value[:40]!r} is {wrong}"


def _wrong_value(sheet: Sheet, value: str) -> str | None:
  if sheet.labels:
    if value in sheet.labels:
      return None
    return f"none of {', '.join(sheet.labels)}"
  highest = GLUE_TASKS[sheet.task].highest
  if _NUMBER.fullmatch(value) and 0 <= float(value) <= highest:
    return None
  return f"not a number from 0 to {highest:g}"


def _describe(sheet: Sheet, values: Sequence[str]) -> str:
  """Summarises the predictions of a sheet in one line."""
  if sheet.labels:
    counts = collections.Counter(values)
    summary = ", ".join(
      f"{label} {counts[label] / len(values):.1%}" for label in sheet.labels
    )
  else:
    ratings = [float(value) for value in values]
    mean = sum(ratings) / len(ratings)
    summary = f"{min(ratings):.2f} to {max(ratings):.2f}, mean {mean:.2f}"
  return f"{sheet.name}: {len(values):,} predictions, {summary}"


def _write_archive(path: epath.Path, texts: dict[str, str]) -> None:
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w") as archive:
    for name, text in texts.items():
      entry = zipfile.ZipInfo(name, _DATE)
      entry.compress_type = zipfile.ZIP_DEFLATED
      # By default, both depend on the operating system.
      entry.create_system, entry.external_attr = 3, 0o644 << 16
      archive.writestr(entry, text.encode(), compresslevel=9)
  try:
    files.write_bytes(path, buffer.getvalue())
  except OSError as error:
    raise UserError(
      f"cannot write {path}: {error.strerror}; give a file in a folder that"
      " exists"
    ) from error


def _inspect(path: str) -> tuple[list[str], list[str]]:
  """Returns a line about each valid file of an archive, and all problems."""
  place = epath.Path(path)
  try:
    size = place.stat().length
    if size > MAX_BYTES:
      return [], [
        f"{size:,} bytes, more than the {MAX_BYTES:,} allowed: not opened"
      ]
    data = place.read_bytes()
  except OSError as error:
    raise UserError(f"cannot read {path}: {error.strerror}") from error
  try:
    archive = zipfile.ZipFile(io.BytesIO(data))
  except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
    return [], [f"not a zip archive ({error})"]
  with archive:
    problems = list(_wrong_names(archive.namelist()))
    if len(archive.infolist()) > _MAX_ENTRIES:
      return [], problems[:_MAX_PROBLEMS]
    lines = []
    for sheet in SHEETS:
      if sheet.name in archive.namelist():
        line, found = _inspect_sheet(archive, sheet)
        lines += line
        problems += [f"{sheet.name}, {problem}" for problem in found]
  return lines, problems


def _wrong_names(names: Sequence[str]) -> Iterator[str]:
  expected = [sheet.name for sheet in SHEETS]
  if len(names) > _MAX_ENTRIES:
    yield f"{len(names):,} files, a submission has {len(SHEETS)}: not opened"
  for name, count in collections.Counter(names).items():
    if name not in expected:
      base = name.rpartition("/")[2]
      hint = "; it must not be in a folder" if base in expected else ""
      yield f"{name[:80]!r} is not a file of a submission{hint}"
    elif count > 1:
      yield f"{name} occurs {count} times"
  for name in expected:
    if name not in names:
      yield f"{name} is missing"


def _inspect_sheet(
  archive: zipfile.ZipFile, sheet: Sheet
) -> tuple[list[str], list[str]]:
  """Returns the line about a sheet, if it is valid, and its problems."""
  try:
    lines = _unpack(archive.getinfo(sheet.name), archive)
  except UserError as error:
    return [], [str(error)]
  problems = []
  for problem in _problems(sheet, lines):
    if len(problems) == _MAX_PROBLEMS:
      return [], [*problems, "and more rows like these"]
    problems.append(problem)
  if problems:
    return [], problems
  return [_describe(sheet, [line.split("\t")[1] for line in lines[1:]])], []


def _unpack(entry: zipfile.ZipInfo, archive: zipfile.ZipFile) -> list[str]:
  """Returns the lines of a file, unless it is unsafe to unpack."""
  if entry.flag_bits & 0x1:
    raise UserError("encrypted; pack it without a password")
  if entry.compress_type not in _PACKINGS:
    raise UserError("compressed in an unusual way; use plain deflate")
  if entry.file_size > MAX_BYTES:
    raise UserError(f"{entry.file_size:,} bytes when unpacked: too large")
  try:
    # At most the size that was checked above.
    with archive.open(entry) as file:
      text = file.read(entry.file_size).decode()
  except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
    raise UserError(f"damaged ({error})") from error
  except UnicodeDecodeError as error:
    row = error.object.count(b"\n", 0, error.start) + 1
    raise UserError(f"row {row}: not UTF-8") from error
  lines = text.removesuffix("\n").split("\n")
  return [line.removesuffix("\r") for line in lines] if text else []
