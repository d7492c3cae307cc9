"""Which layer of a model an operation of a compiled program belongs to."""

import re

# What JAX puts around the names of modules.
_WRAPPERS = frozenset(
  (
    "while",
    "body",
    "closed_call",
    "checkpoint",
    "rematted_computation",
    "cond",
    "pjit",
    "scan",
    "shard_map",
    "remat",
  )
)
_TRANSFORMED = re.compile(r"(transpose\()?jvp\((?P<module>[^()]*)\)\)?")
_CALL = re.compile(r"\w+\(.*\)|branch_\d+_fun|.*<locals>.*|[\w,]+->\w+")
# A scan reads and writes one layer of stacked arrays: "stack" is what the
# backward pass needs, the parameters and their gradients.
_STACKED = ("dynamic_index_in_dim", "dynamic_update_index_in_dim")
_REPEATED = "rematted_computation"

# The networks of pre-training, which other names say nothing of.
_NETWORKS = {
  "ConvBertForPreTraining": "discriminator",
  "ConvBertForMaskedLM": "masked LM",
  "ConvBertForCloze": "cloze model",
}
_ENCODER = "convbert"

UNNAMED = "unnamed"


def layer_name(source: str) -> str:
  """Returns a layer and the direction of the pass through it.

  Args:
    source: the path that JAX gives an operation, as in
      "jit(step)/transpose(jvp(Model))/encoder/while/body/layers/output/add".

  Returns:
    As "Model/encoder/layers/output, backward"; "recomputed" instead of
    "backward" for what is done once more to save memory.
  """
  if not source:
    return UNNAMED
  # Of operations that were merged, the first.
  *path, _ = source.partition(";")[0].split("/")
  names, is_backward = [], False
  for part in path:
    transformed = _TRANSFORMED.fullmatch(part)
    if transformed:
      is_backward = is_backward or bool(transformed[1])
      part = transformed["module"]
    if part and part not in _WRAPPERS and not _CALL.fullmatch(part):
      names.append(_NETWORKS.get(part, part.rpartition(".")[2]))
  # Scopes within a module are repeated in the names of its operations.
  names = [name for name in dict.fromkeys(names) if name != _ENCODER]
  if any(name in part for part in path for name in _STACKED):
    names.append("stack")
  layer = "/".join(names) or "outside of the model"
  if _REPEATED in path:
    return f"{layer}, recomputed"
  return f"{layer}, backward" if is_backward else layer
