"""What the PyTorch side of a comparison computes."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from pretend import CONFIG, SETTINGS

from convbert_jax.formats import huggingface_state
from convbert_jax.objective import masking
from convbert_jax.objective.kinds import make_pretraining
from convbert_jax.planning.step_program import SPECIAL_IDS
from experiments.benchmarks import peer_worker, random_step
from experiments.config_files import load_config

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peer_huggingface = pytest.importorskip(
  "experiments.benchmarks.peer_huggingface"
)


def test_the_pytorch_side_computes_what_ours_does(tmp_path):
  """The generator's logits; and the losses of untrained heads, which are known.

  They are ln V and ln 2, the second weighted.
  """
  config = load_config(CONFIG, [*SETTINGS, "model.head_size_rule=hf"])
  workload = peer_worker.Workload(
    str(tmp_path), config.to_dict(), SPECIAL_IDS, num_predictions=4
  )
  batch = random_step.random_batch(config)
  workload.write(batch)
  torch.manual_seed(0)
  theirs = peer_huggingface.Electra(workload)
  ours = make_pretraining(config)
  params = nn.unbox(ours.init_params(jax.random.key(0)))
  assert sum(p.numel() for p in theirs.parameters()) == sum(
    leaf.size for leaf in jax.tree.leaves(params)
  )
  inputs = [torch.from_numpy(batch[name]).long() for name in batch]
  loss = theirs(*inputs).item()
  weight = config.objective.discriminator_weight
  assert loss == pytest.approx(np.log(1200) + weight * np.log(2), rel=0.1)

  state = huggingface_state.state_dict_from_params(
    ours.generator_params(params), ours.generator_config
  )
  tensors = {name: torch.tensor(array) for name, array in state.items()}
  theirs.generator.load_state_dict(tensors, strict=False)
  selection = masking.select(
    jax.random.key(1), jax.device_put(batch), 0.15, SPECIAL_IDS
  )
  expected = ours.token_logits(
    params, ours.word_tables(params)[1], batch, selection, None
  )
  inputs[0] = torch.tensor(np.asarray(selection.masked_ids)).long()
  positions = torch.tensor(np.asarray(selection.positions)).long()
  found = theirs.eval()._token_logits(*inputs, positions)
  np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)


def test_tokens_are_drawn_as_often_as_they_are_likely():
  torch.manual_seed(0)
  likely = torch.tensor([0.5, 0.0, 0.2, 0.3])
  drawn = peer_huggingface.sample(likely.log().expand(100, 200, 4))
  shares = torch.bincount(drawn.flatten(), minlength=4) / drawn.numel()
  np.testing.assert_allclose(shares, likely, atol=0.02)
