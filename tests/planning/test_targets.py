"""What the step does on chips that are not here, beside what it did before.

Run by `make test-targets`, where the compilers are. After a change that is
meant: `make test-targets PYTEST=--update-golden`.
"""

import importlib.util
import json
import math
import os
import pathlib
import re
import subprocess
import sys

import jaxlib
import pytest
from programs import ROOT

from convbert_jax.model.config import REMAT_POLICIES
from convbert_jax.planning import program_text

PATH = pathlib.Path(__file__).parents[1] / "golden" / "compiled_steps.json"
# How much more of anything is no accident.
GROWTH = 1.03
# The tests' own settings are for CPUs.
OF_TESTS = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")

needs_tpu_compiler = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="no libtpu"
)
needs_gpu_compiler = pytest.mark.skipif(
  importlib.util.find_spec("jax_cuda13_plugin") is None,
  reason="no jax-cuda13-plugin",
)


def run(*arguments):
  environment = {k: v for k, v in os.environ.items() if k not in OF_TESTS}
  return subprocess.run(
    [sys.executable, "-m", "experiments.preflight", *arguments],
    cwd=ROOT,
    # Asks for what NVIDIA's assembler says of hand-written kernels.
    env={**environment, "MOSAIC_GPU_DUMP_PTXAS": "1"},
    capture_output=True,
    text=True,
  )


def preflight(folder, target, size, *settings, arguments=()):
  """Returns what the program writes for a step in bfloat16, and prints."""
  values = folder / "values.json"
  done = run(
    f"--config=configs/pretrain.py:size={size},seq=128",
    "--config.model.dtype=bfloat16",
    *(f"--config.{setting}" for setting in settings),
    f"--target={target}",
    f"--json={values}",
    *arguments,
  )
  assert done.returncode == 0, done.stderr
  assert "verdict            fits" in done.stdout
  return json.loads(values.read_text()), done.stdout + done.stderr


def costs(values):
  """Returns what must not grow, of one chip and step."""
  exchanges = {
    kind: each["inside"] + each["outside"]
    for kind, each in values["exchanges"].items()
  }
  return {
    "memory traffic": values["num_bytes"],
    "kernels": values["num_kernels"],
    "temporaries": values["memory"]["temporaries"],
    **exchanges,
  }


def check(key, found, request):
  """Compares costs with those that are kept, or keeps them."""
  kept = json.loads(PATH.read_text())
  version = jaxlib.__version__
  if request.config.getoption("--update-golden"):
    kept.setdefault(version, {})[key] = found
    PATH.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
  # requirements-targets.txt says which version is installed.
  assert version in kept, f"{PATH.name} knows nothing of jaxlib {version}"
  for name, value in found.items():
    before = kept[version][key].get(name, 0)
    assert value <= GROWTH * before, f"{name}: {value:,}, was {before:,}"


def products_of_sampling():
  """Returns the operations that draw a chip's tokens, on TPUs alone.

  The weights of 64 rows with 19 masked places, over BERT's vocabulary, are
  multiplied with as many columns as there are blocks, and tokens in a block.
  """
  rows, vocabulary = 64 * 19, 30_522
  size = math.isqrt(vocabulary - 1) + 1
  return 2 * rows * vocabulary * (size + math.ceil(vocabulary / size))


@needs_tpu_compiler
@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "base"])
def test_a_step_does_no_more_than_before(tmp_path, request, size):
  values, _ = preflight(tmp_path, "v5e:4x4", size, "batch_size=1024")
  assert values["program_flops"] == pytest.approx(
    values["model_flops"] + products_of_sampling(), rel=0.02
  )
  check(f"{size}, 1024 x 128, bfloat16, v5e:4x4", costs(values), request)


@needs_tpu_compiler
@pytest.mark.slow
def test_optimizer_and_parameters_split_over_two_chips(tmp_path, request):
  values, printed = preflight(
    tmp_path, "v5e:4x4", "base", "batch_size=1024", "mesh.fsdp=2"
  )
  assert values["mesh"] == {"data": 8, "fsdp": 2, "tensor": 1}
  assert "\nby its compiler " in printed
  check("base, 1024 x 128, bfloat16, v5e:4x4, fsdp", costs(values), request)


@needs_tpu_compiler
@pytest.mark.slow
@pytest.mark.parametrize("remat", REMAT_POLICIES)
def test_every_recomputation_compiles_for_a_tpu(tmp_path, remat):
  # Without a barrier at attention's logits, the compiler itself crashed.
  preflight(
    tmp_path,
    "v5e:2x2",
    "small",
    "model.num_hidden_layers=2",
    f"model.remat={remat}",
  )


@needs_gpu_compiler
@pytest.mark.slow
def test_a_gpu_is_compiled_for_without_one(tmp_path, request):
  found, _ = preflight(tmp_path, "h100:8", "small", "batch_size=1024")
  assert found["program_flops"] == pytest.approx(found["model_flops"], rel=0.02)
  sent = found["exchanges"]["all-reduce"]
  # The gradients once, in bfloat16.
  assert sent["inside"] + sent["outside"] == pytest.approx(
    2 * found["num_params"], rel=0.02
  )
  check("small, 1024 x 128, bfloat16, h100:8", costs(found), request)


@needs_gpu_compiler
@pytest.mark.slow
def test_unrolled_layers_with_kernels_do_no_more_than_before(tmp_path, request):
  text = tmp_path / "program.txt"
  found, printed = preflight(
    tmp_path,
    "h100:1",
    "base",
    "model.num_hidden_layers=2",
    "model.scan_unroll=2",
    "model.remat=none",
    "model.kernels=fused",
    arguments=[f"--save_hlo={text}"],
  )
  # Kernels state their products, attention's among them.
  assert found["program_flops"] == pytest.approx(found["model_flops"], rel=0.02)
  masks = [
    instruction.name
    for instruction, _, _ in program_text.parse(text.read_text()).launched()
    if instruction.opcode == "fusion"
    and any(
      array.dtype == "pred" and array.num_elements >= 256 * 128 * 256
      for array in instruction.results
    )
  ]
  # One for the embeddings of each network, none for a layer.
  assert len(masks) <= 2, masks
  spilled = re.findall(r"(\d+) bytes spill stores", printed)
  assert len(spilled) >= 18  # Nine kernels of a layer, in each network.
  assert set(spilled) == {"0"}
  key = "base of 2 layers, 256 x 128, bfloat16, fused, h100:1"
  check(key, costs(found), request)


@needs_tpu_compiler
@pytest.mark.slow
def test_what_cannot_be_compiled_is_one_line():
  refused = run("--target=v5e:3x4")
  assert refused.returncode == 1
  assert "v5e:3x4 is no TPU topology (" in refused.stderr.splitlines()[-1]
  too_large = run(
    "--config=configs/pretrain.py:size=tiny,seq=512",
    "--config.batch_size=32768",
    "--target=v5e:2x2",
  )
  assert too_large.returncode == 1
  (line,) = (
    row for row in too_large.stderr.splitlines() if row.startswith("error: ")
  )
  assert "GB on each device, and a TPU v5e has 16.9 GB for arrays" in line
  assert "--config.accumulation_steps=" in line
