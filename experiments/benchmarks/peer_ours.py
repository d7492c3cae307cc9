"""Our side of a comparison.

Started by `experiments.benchmarks.peers`:

  python -m experiments.benchmarks.peer_ours FOLDER train|inference|weights

"weights" writes a random encoder into the workload's folder and ends; the
others answer until stdin ends.
"""

import sys
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from convbert_jax import host_memory, load_pretrained
from convbert_jax.formats import huggingface
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel
from experiments.benchmarks import peer_worker, random_step


def prepare_training(workload: peer_worker.Workload) -> peer_worker.Work:
  """Compiles the step that `training_step` times."""
  step = random_step.compile_random_step(ConfigDict(workload.config))
  return _work(
    step, lambda: jax.block_until_ready(step.state), step.state.params
  )


def prepare_inference(workload: peer_worker.Workload) -> peer_worker.Work:
  """Compiles the encoder, and saves its output on the batch."""
  config, params, _ = load_pretrained(workload.weights_folder)
  model = ConvBertModel(config.replace(dtype=workload.config["model"]["dtype"]))
  params = jax.device_put(params)
  batch = jax.device_put(workload.batch())

  @jax.jit
  def encode(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    return model.apply({"params": params}, **batch).last_hidden_state

  last = [encode(params, batch)]
  np.save(workload.output_path("ours"), np.asarray(last[0], np.float32))

  def call() -> None:
    last[0] = encode(params, batch)

  return _work(call, lambda: jax.block_until_ready(last[0]), params)


def write_weights(workload: peer_worker.Workload) -> None:
  """Writes a model folder with random parameters of the discriminator."""
  config = ConvBertConfig(**workload.config["model"])
  # Transformers cannot mask padding here, and the batch has none.
  model = ConvBertModel(config.replace(mask_padding_in_conv=False))
  batch = workload.batch()
  key = jax.random.key(workload.config["seed"])
  params = jax.jit(model.init)(key, **batch)["params"]
  huggingface.write_folder(
    workload.weights_folder,
    Pretrained(model, params),
  )


def _work(call: Any, wait: Any, params: Any) -> peer_worker.Work:
  return peer_worker.Work(
    call=call,
    wait=wait,
    peak_bytes=random_step.device_peak_bytes,
    about={
      "platform": jax.default_backend(),
      "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
      "differs": [],
    },
  )


def main(folder: str, mode: str) -> None:
  """Writes the weights, or answers until stdin ends."""
  host_memory.keep_freed()
  workload = peer_worker.read_workload(folder)
  if mode == "weights":
    write_weights(workload)
  else:
    prepare = prepare_training if mode == "train" else prepare_inference
    peer_worker.serve(lambda: prepare(workload))


if __name__ == "__main__":
  main(*sys.argv[1:])
