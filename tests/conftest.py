"""Eight virtual devices, strict ranks, warnings as errors, quick compiles."""

import importlib.metadata
import os
import pathlib
import signal

os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    # The tests' time goes on compiling programs that run once.
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE",
    # Later versions have no other emitters and refuse the flag.
    "--xla_cpu_use_fusion_emitters=false"
    if importlib.metadata.version("jaxlib").startswith("0.10.")
    else "",
  ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests, their worker processes and the programs that they start compile many
# programs alike; a second run of the suite finds them compiled.
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR",
  str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "compiled"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import pytest

# A shell has its background jobs ignore Ctrl-C, and programs that tests start
# would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)

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
