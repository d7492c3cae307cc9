"""`pytorch_model.bin`: weights are read, anything else is refused."""

import os
import pickle
import sys

import jax
import numpy as np
import pytest
import reference_models as reference
import safetensors.numpy

from convbert_jax import ConvBertModel
from convbert_jax.errors import UserError
from convbert_jax.formats import huggingface
from convbert_jax.formats.pretrained import Pretrained


@pytest.fixture
def folder(tmp_path):
  """A model folder whose weights are named on the way out."""
  golden = reference.load("hf_r2_k9_g1_proj")
  config, _ = reference.hf_inputs(golden)
  params = reference.hf_tree(reference.select(golden, "sd/"))
  path = tmp_path / "model"
  given = Pretrained(ConvBertModel(config), params)
  huggingface.write_folder(str(path), given)
  weights = path / "model.safetensors"
  arrays = safetensors.numpy.load_file(weights)
  weights.unlink()
  return path, arrays, params


class Hostile:
  """Makes a file as soon as it is unpickled."""

  def __init__(self, path):
    self._path = str(path)

  def __reduce__(self):
    return os.mkdir, (self._path,)


def test_without_pytorch_one_line_says_how_to_install_it(folder, monkeypatch):
  path, _, _ = folder
  (path / "pytorch_model.bin").write_bytes(b"")
  monkeypatch.setitem(sys.modules, "torch", None)
  with pytest.raises(UserError, match="needs PyTorch: pip install torch"):
    huggingface.read_folder(str(path))


@pytest.mark.slow
def test_weights_are_read(folder):
  torch = pytest.importorskip("torch")
  path, arrays, params = folder
  tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
  torch.save(tensors, path / "pytorch_model.bin")
  found = huggingface.read_folder(str(path))
  jax.tree.map(np.testing.assert_array_equal, found.params, params)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["as PyTorch saves", "bare", "cut short"])
def test_a_hostile_or_damaged_pickle_is_refused(folder, tmp_path, how):
  torch = pytest.importorskip("torch")
  path, arrays, _ = folder
  file, trap = path / "pytorch_model.bin", tmp_path / "trap"
  if how == "bare":
    file.write_bytes(pickle.dumps({"weight": Hostile(trap)}))
  elif how == "as PyTorch saves":
    torch.save({"weight": Hostile(trap)}, file)
  else:
    torch.save({n: torch.from_numpy(a) for n, a in arrays.items()}, file)
    file.write_bytes(file.read_bytes()[:-500])
  with pytest.raises(UserError, match="was not read") as caught:
    huggingface.read_folder(str(path))
  assert "\n" not in str(caught.value)
  assert not trap.exists()
  if how == "as PyTorch saves":
    # The trap is a real one: what unpickles everything falls into it.
    torch.load(file, weights_only=False)
    assert trap.exists()
