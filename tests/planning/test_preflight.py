"""A run is known before it runs."""

import json
import types

import jax
import pytest
from programs import CONFIG, assert_one_line, run

from convbert_jax.errors import UserError
from convbert_jax.planning import preflight, topologies
from convbert_jax.planning.devices import parse_target
from experiments.config_files import load_config

TINY = [
  "batch_size=16",
  "model.vocab_size=200",
  "model.num_hidden_layers=2",
  "model.max_position_embeddings=32",
  "model.hidden_size=64",
  "model.embedding_size=64",
  "model.intermediate_size=128",
  "num_steps=100",
]


@pytest.fixture(scope="module")
def found():
  config = load_config(CONFIG, TINY)
  target = parse_target(f"cpu:{jax.device_count()}")
  return preflight.forecast(config, target, print)


def test_a_forecast_adds_up(found):
  assert found.mesh == {"data": 8, "fsdp": 1, "tensor": 1}
  # Parameters, and two moments of each, in float32.
  assert found.memory["parameters"] == 4 * found.num_params
  assert found.memory["optimizer"] == 8 * found.num_params
  assert found.fits
  # The program does what the model needs. (The output map's products are only
  # those of the predicted tokens.)
  assert found.program_flops == pytest.approx(found.model_flops, rel=0.05)
  gradients = found.exchanges["all-reduce"]
  assert gradients.inside + gradients.outside == pytest.approx(
    4 * found.num_params, rel=0.1
  )
  assert found.step_seconds == pytest.approx(
    found.kernel_seconds + found.exchange_seconds
  )
  assert found.tokens_per_second == found.tokens / found.step_seconds
  assert found.days * 86_400 == pytest.approx(100 * found.step_seconds)
  assert found.device_hours == pytest.approx(8 * 24 * found.days)
  assert list(found.sources.values()) == sorted(
    found.sources.values(), reverse=True
  )


@pytest.mark.parametrize(
  ("settings", "used", "state", "tried"),
  [
    (
      [],
      30e9,
      1e9,
      ["model.remat=full", "accumulation_steps=2", "batch_size=128"],
    ),
    (
      ["model.remat=full"],
      60e9,
      1e9,
      ["accumulation_steps=4", "batch_size=64"],
    ),
    # A row for each device cannot be halved.
    (["model.remat=full", "batch_size=16"], 30e9, 1e9, []),
    # No batch makes room for parameters.
    (["model.remat=full"], 40e9, 30e9, ["mesh.fsdp=4"]),
    (["model.remat=full", "mesh.tensor=4"], 40e9, 30e9, ["mesh.fsdp=4"]),
    (["model.remat=full", "mesh.tensor=8"], 40e9, 30e9, []),
  ],
)
def test_mends(settings, used, state, tried):
  config = load_config(CONFIG, ["batch_size=256", *settings])
  target = parse_target("v5e:4x4")
  tensor = config.mesh.tensor
  mesh = {"data": target.count // tensor, "fsdp": 1, "tensor": tensor}
  found = preflight.mends(config, mesh, target, used, state)
  names = [each.removeprefix("--config.mesh.data=-1 ") for each in found]
  assert [each.removeprefix("--config.") for each in names] == tried


def test_the_compilers_answer_becomes_the_verdict(monkeypatch):
  said = "memory space hbm. Used 40.42G of 15.75G hbm."

  def refuse(_):
    raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: Ran out in {said}")

  monkeypatch.setattr(preflight.step_program.Step, "compile", refuse)
  monkeypatch.setattr(topologies, "devices_of", lambda _: jax.devices())
  config = load_config(CONFIG, ["batch_size=256", "model.remat=full"])
  with pytest.raises(preflight.DoesNotFit) as error:
    preflight.forecast(config, parse_target("v5e:4x4"), print)
  assert str(error.value) == (
    "the step needs 43.4 GB on each device, and a TPU v5e has 16.9 GB for"
    " arrays; try --config.accumulation_steps=4, --config.batch_size=64, or"
    " more devices"
  )
  said = (
    "memory on HBM, the total memory required for HLO temporaries (386.99G)"
    " exceeds available HBM (15.75G)."
  )
  with pytest.raises(preflight.DoesNotFit, match=r"the step needs 415\.5 GB"):
    preflight.forecast(config, parse_target("v5e:4x4"), print)
  # Another memory is no measure of this one.
  said = "memory space vmem. Used 20.30M of 16.00M vmem."
  with pytest.raises(preflight.DoesNotFit, match="the step does not fit, and"):
    preflight.forecast(config, parse_target("v5e:4x4"), print)


@pytest.fixture
def eight(monkeypatch):
  """Makes this process's devices those of a target of eight."""
  monkeypatch.setattr(topologies, "devices_of", lambda _: jax.devices())
  return parse_target("h100:8")


def test_the_largest_batch_is_found(monkeypatch, eight):
  tried, told = [], []

  def forecast(config, target, tell, init_from):
    tried.append(config.batch_size)
    if config.batch_size > 1000:
      raise preflight.DoesNotFit("too much")
    found = types.SimpleNamespace(batch_size=config.batch_size)
    found.fits, found.memory_used = config.batch_size <= 900, 1e9
    return found

  monkeypatch.setattr(preflight, "forecast", forecast)
  config = load_config(CONFIG, ["batch_size=64", "accumulation_steps=2"])
  found = preflight.largest_batch(config, eight, told.append)
  # A multiple of 16, at most 900, and within a sixteenth of it.
  assert 896 * 15 / 16 <= found.batch_size <= 896
  assert len(tried) == len(set(tried)) == len(told) < 12
  assert told[0] == "batch_size=64: 1.0 GB"


def test_no_batch_fits(monkeypatch, eight):
  def forecast(config, target, tell, init_from):
    raise preflight.DoesNotFit("too much")

  monkeypatch.setattr(preflight, "forecast", forecast)
  config = load_config(CONFIG, ["batch_size=256", "accumulation_steps=8"])
  with pytest.raises(UserError, match="not even batch_size=64, a row for each"):
    preflight.largest_batch(config, eight, print)


@pytest.mark.parametrize(
  ("setting", "says"),
  [
    ("accumulation_steps=0", "accumulation_steps=0 must be at least 1"),
    ("max_seq_length=0", "max_seq_length=0 must be at least 1"),
    ("batch_size=12", "batch_size=12 must be a multiple of 8: the devices"),
    ("mesh.tensor=0", "does not arrange the 8 devices"),
  ],
)
def test_what_cannot_be_planned_is_one_line(eight, setting, says):
  config = load_config(CONFIG, [setting])
  with pytest.raises(UserError, match=says):
    preflight.forecast(config, eight, print)


@pytest.mark.parametrize(
  ("target", "says"),
  [
    ("v5e:4x4", r"pip install 'convbert_jax\[preflight-tpu\]'"),
    ("h100:8", r"pip install 'convbert_jax\[preflight-gpu\]'"),
  ],
)
def test_a_missing_compiler_is_one_line(monkeypatch, target, says):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(UserError, match=says):
    topologies.prepare(parse_target(target))


@pytest.mark.slow
def test_the_program(tmp_path):
  settings = [f"--config.{setting}" for setting in TINY]
  values, text = tmp_path / "sub" / "values.json", tmp_path / "program.txt"
  done = run(
    "preflight",
    f"--config={CONFIG}",
    "--target=cpu:4",
    f"--json={values}",
    f"--save_hlo={text}",
    *settings,
  )
  assert done.returncode == 0, done.stderr
  assert "cpu:4: 4 x CPU" in done.stdout
  assert done.stdout.rstrip().endswith("fits")
  assert json.loads(values.read_text())["mesh"]["data"] == 4
  assert "ENTRY" in text.read_text()
  refused = run(
    "preflight",
    f"--config={CONFIG}",
    "--target=cpu:3",
    *settings,
  )
  assert_one_line(refused, "batch_size=16 must be a multiple of 3")
