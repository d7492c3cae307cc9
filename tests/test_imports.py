"""Imports run one way, downwards."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# What each room may import of ours, beside itself and `errors`.
ALLOWED = {
  "errors": set(),
  "ops": set(),
  "model": {"ops"},
  "data": {"ops"},
  "training": {"ops"},
}
ALLOWED["masking"] = {"ops"}
ALLOWED["scores"] = {"masking"}
ALLOWED["convert"] = {"ops", "model", "data", "training"}
ALLOWED["tasks"] = ALLOWED["convert"] | {"spans"}
ALLOWED["electra"] = ALLOWED["convert"] | {"masking", "scores"}
ALLOWED["pretrain"] = ALLOWED["electra"] | {"electra"}
ALLOWED["pretrained"] = ALLOWED["pretrain"] | {"pretrain", "convert"}
ALLOWED["serving"] = ALLOWED["pretrained"]
ALLOWED["spans"] = {"data"}
ALLOWED["predict"] = ALLOWED["pretrained"] | {"pretrained", "spans"}
ALLOWED["starting_point"] = ALLOWED["pretrained"] | {"pretrained"}
ALLOWED["trials"] = ALLOWED["starting_point"] | {"starting_point", "tasks"}
ALLOWED["finetune"] = ALLOWED["trials"] | {"trials"}
ALLOWED["__init__"] = set(ALLOWED)
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


def violations(room, source):
  """Returns the imports of a file in `room` that run upwards."""
  found = []
  for name in imported_modules(source):
    package, *rest = name.split(".")
    if package in OURS - {"convbert_jax"}:
      found.append(name)
    if package == "convbert_jax" and rest:
      target = rest[0]
      rooms_allowed = ALLOWED[room] | {room, "errors"}
      if target in ALLOWED and target not in rooms_allowed:
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
    ("training", "def f():\n  import convbert_jax.electra"),
    ("data", "from convbert_jax import training"),
    ("model", "from convbert_jax.data.loader import make_train_loader"),
    ("ops", "import convbert_jax.model.layers as layers"),
    ("electra", "from convbert_jax import pretrain"),
    ("pretrain", "from configs import pretrain"),
    ("pretrain", "import experiments.command_line"),
  ],
)
def test_upward_imports_are_found(room, source):
  assert violations(room, source)


def test_downward_imports_are_accepted():
  source = "from convbert_jax import electra, errors\nimport numpy"
  assert violations("pretrain", source) == []
