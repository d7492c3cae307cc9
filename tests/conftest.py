"""Eight virtual devices, strict ranks, warnings as errors."""

import os
import pathlib

os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    # The tests' time goes on compiling programs that run once.
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
  ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

GOLDEN = pathlib.Path(__file__).parent / "golden"


def pytest_addoption(parser):
  parser.addoption(
    "--update-golden",
    action="store_true",
    help="write the golden texts under tests/golden anew instead of comparing",
  )


@pytest.fixture
def check_golden_text(request):
  """Compares a text with a file under tests/golden, or writes it there."""

  def check(name, text):
    path = GOLDEN / name
    if request.config.getoption("--update-golden"):
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(text)
    assert path.read_text() == text, (
      f"{name} differs; if that is meant: pytest --update-golden"
    )

  return check
