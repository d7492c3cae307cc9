"""Imports run one way, downwards."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# The rooms, from the ground up; a room imports from the floors below its own.
FLOORS = (
  {"errors"},
  {"files", "host_memory", "ranges"},
  {"hub", "old_configs", "object_store"},
  {"ops", "data"},
  {"model", "training"},
  {"storage"},
  {"objective", "tasks"},
  {"formats"},
  {"pretraining"},
  {"finetuning"},
  {"inference", "planning"},
  {"studies"},
)
ROOMS = set().union(*FLOORS)
# The package's front door looks everything up by name, and imports it late.
ALLOWED = {"__init__": ROOMS}
for number, floor in enumerate(FLOORS):
  for room in floor:
    ALLOWED[room] = set().union(*FLOORS[:number])
ALLOWED["model"] -= {"data"}
OURS = {"convbert_jax", "configs", "experiments", "tests"}


def imported_modules(source):
  """Yields the dotted name of everything a source imports."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, "relative imports hide their direction"
      yield node.module
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(path):
  """Returns the room that a file of the package stands in."""
  return path.relative_to(ROOT / "convbert_jax").parts[0].removesuffix(".py")


# A model's class finds its parameters in any format: its `from_pretrained`
# imports these when it is called.
UPWARDS = {
  f"convbert_jax.formats.{name}"
  for name in (
    "bind",
    "bind.initialise",
    "bind.load",
    "bound_model",
    "bound_model.BoundModel",
    "load",
    "load.load_model",
  )
}


def violations(room, source):
  """Returns the imports of a file in `room` that run upwards."""
  found = []
  for name in imported_modules(source):
    package, *rest = name.split(".")
    if package in OURS - {"convbert_jax"}:
      found.append(name)
    if package == "convbert_jax" and rest:
      target = rest[0]
      if room == "model" and name in UPWARDS:
        continue
      if target in ROOMS and target not in ALLOWED[room] | {room}:
        found.append(name)
  return found


PACKAGE_FILES = sorted((ROOT / "convbert_jax").rglob("*.py"))


@pytest.mark.parametrize(
  "path", PACKAGE_FILES, ids=lambda path: str(path.relative_to(ROOT))
)
def test_package_imports_downwards(path):
  room = room_of(path)
  assert room in ALLOWED, f"say above what the room {room!r} may import"
  assert violations(room, path.read_text()) == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")))
def test_configs_import_no_array_library(path):
  roots = {name.split(".")[0] for name in imported_modules(path.read_text())}
  assert not roots & {"jax", "flax", "numpy", "convbert_jax", "experiments"}


@pytest.mark.parametrize(
  ("room", "source"),
  [
    ("training", "from convbert_jax.model import config"),
    ("training", "def f():\n  import convbert_jax.objective"),
    ("data", "from convbert_jax import training"),
    ("model", "from convbert_jax.data.loader import make_train_loader"),
    ("ops", "import convbert_jax.model.layers as layers"),
    ("objective", "from convbert_jax import pretraining"),
    ("pretraining", "from configs import pretrain"),
    ("pretraining", "import experiments.command_line"),
    ("formats", "from convbert_jax.pretraining import run"),
  ],
)
def test_upward_imports_are_found(room, source):
  assert violations(room, source)


def test_downward_imports_are_accepted():
  source = "from convbert_jax import errors, objective\nimport numpy"
  assert violations("pretraining", source) == []
