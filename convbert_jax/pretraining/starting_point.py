"""Parameters that a pre-training starts from: a run's, or any model's."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from convbert_jax import files
from convbert_jax.errors import UserError
from convbert_jax.formats.load import load_networks
from convbert_jax.formats.names import same_arrays
from convbert_jax.formats.pretrained import (
  Networks,
  Pretrained,
  architecture_differences,
  count_other_tokens,
)
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.heads import ConvBertForMaskedLM, ConvBertForPreTraining
from convbert_jax.objective import run_folder
from convbert_jax.objective.pretraining import Pretraining
from convbert_jax.training import restore

# Networks by what they are used for; of each, the first that a source has.
_MAIN = ("discriminator", "masked_lm", "encoder", "")
_LM_HEAD = ("generator_predictions", "output_bias")

Params = dict[str, Any]


def given_params(
  init_from: str, pretraining: Pretraining, records: str
) -> restore.GivenParams:
  """Returns the parameters that a new run starts from, read when it starts.

  Args:
    init_from: a run's workdir, or one of its `checkpoints/<step>`: all of its
      parameters; or any source that `formats.load` reads: what fits.
    pretraining: the networks of the new run.
    records: folder that `experiments.build_data` wrote.

  Returns:
    A function that raises a `UserError` if the source cannot be read, or is of
    another architecture or vocabulary than the new run.
  """

  def read(like: Any) -> tuple[Any, str]:
    if run_folder.is_run(init_from):
      vocabulary = _vocabulary_in(run_folder.workdir_of(init_from))
      if vocabulary:
        _check_vocabulary(init_from, vocabulary, records)
      return restore.params_of_run(init_from)(like)
    networks = load_networks(init_from)
    for network in networks.values():
      if network.tokenizer is not None:
        vocabulary = network.tokenizer.vocabulary
        _check_vocabulary(init_from, vocabulary, records)
    params, source = starting_params(init_from, networks, pretraining, like)
    return restore.params_of_arrays(params, source)(like)

  return read


def starting_params(
  source: str,
  networks: Networks,
  pretraining: Pretraining,
  like: Mapping[str, Any],
) -> tuple[Params, str]:
  """Returns what a run takes over from some networks.

  An encoder becomes that of the discriminator, or of the masked language model.
  A generator beside it becomes the generator. The head of a lone language model
  becomes the generator's where it fits.

  Args:
    source: what the user called them, for messages.
    networks: as `load_networks` returns them.
    pretraining: the networks of the run.
    like: the shapes of all its parameters.

  Returns:
    The subtrees that are taken over, NumPy arrays, and a line that says which
    these are and what starts fresh.

  Raises:
    UserError: if an architecture differs from the run's.
  """
  main = next((networks[name] for name in _MAIN if name in networks), None)
  if main is None:
    raise UserError(
      f"checkpoint.init_from={source} holds a generator alone; name a"
      " discriminator or an encoder"
    )
  _check_architecture(source, main.model.config, pretraining.config)
  if "masked_lm" in like:
    params = {"masked_lm": _masked_lm(main)}
  else:
    params = {"discriminator": _discriminator(main, pretraining)}
  if "generator" in like:
    generator = networks.get("generator")
    if generator is not None:
      params["generator"] = _generator(source, generator, main, pretraining)
    elif type(main.model) is type(pretraining.generator):
      params["generator"] = _fitting_head(main, like["generator"])
  return params, f"{source}: {_describe(params, like)}"


def _discriminator(main: Pretrained, pretraining: Pretraining) -> Params:
  """Returns it with its head, if that means the same in the run."""
  if (
    isinstance(main.model, ConvBertForPreTraining)
    and main.model.is_energy == pretraining.discriminator.is_energy
  ):
    return main.params
  return {"convbert": main.encoder.params}


def _masked_lm(main: Pretrained) -> Params:
  if isinstance(main.model, ConvBertForMaskedLM):
    if not _has_runs_head(main.model):
      raise UserError(
        "checkpoint.init_from names a language model whose output map is not"
        " its word table, or whose head has another activation than its layers:"
        " no run trains such a one; convert its encoder alone"
      )
    return main.params
  return {"convbert": main.encoder.params}


def _generator(
  source: str, generator: Pretrained, main: Pretrained, pretraining: Pretraining
) -> Params:
  """Returns the generator's own parameters, without those that it shares.

  Raises:
    UserError: if it is of another kind or architecture, or shares less than
      the run.
  """
  kinds = type(generator.model), type(pretraining.generator)
  if kinds[0] is not kinds[1]:
    there, here = (kind.__name__ for kind in kinds)
    raise UserError(
      f"the generator of {source} is a {there}, and that of the run a {here};"
      " name its discriminator alone, or set --config.objective.kind to what it"
      " was trained with"
    )
  differences = architecture_differences(
    generator.model.config, pretraining.generator_config
  )
  if differences:
    raise UserError(
      f"the generator of {source} is another model"
      f" ({'; '.join(differences)}); set --config.generator.FIELD and"
      " --config.objective.FIELD to what it was trained with"
    )
  params = dict(generator.params)
  own, shared = dict(params.pop("convbert")), main.encoder.params
  objective = pretraining.objective
  if objective.tie_generator:
    _check_shared(source, own, shared, "tie_generator")
    return params
  if objective.tie_embeddings:
    tables = own.pop("embeddings")
    _check_shared(source, tables, shared["embeddings"], "tie_embeddings")
  return {**params, "convbert": own}


def _check_shared(source: str, one: Any, other: Any, field: str) -> None:
  if not same_arrays(one, other):
    raise UserError(
      f"generator and discriminator of {source} differ where"
      f" objective.{field}=True shares parameters; set"
      f" --config.objective.{field}=False"
    )


def _fitting_head(main: Pretrained, like: Mapping[str, Any]) -> Params:
  """Returns the head of a language model if the generator's is like it."""
  if not _has_runs_head(main.model):
    return {}
  head = {name: main.params[name] for name in _LM_HEAD}
  wanted = {name: like[name] for name in _LM_HEAD}
  return head if _shapes(head) == _shapes(wanted) else {}


def _has_runs_head(model: ConvBertForMaskedLM) -> bool:
  """Says whether a language model's head is computed as that of a run."""
  config = model.config
  activation = model.head_act or config.hidden_act
  return config.tie_word_embeddings and activation == config.hidden_act


def _shapes(params: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  return {name: leaf.shape for name, leaf in files.flatten(params).items()}


def _describe(params: Params, like: Mapping[str, Any]) -> str:
  """Says which parts of the networks are taken over, and which start fresh."""
  taken: list[str] = []
  fresh: list[str] = []
  for network, parts in like.items():
    name = network.replace("masked_lm", "language model")
    if "convbert" not in parts:  # The discriminator's is its encoder.
      name += " head"
    given = _kinds(params.get(network, {}))
    missing = _kinds(parts) - given
    if not missing:
      taken.append(name)
    elif not given:
      fresh.append(name)
    else:
      taken += [f"{name} {kind}" for kind in sorted(given)]
      fresh += [f"{name} {kind}" for kind in sorted(missing)]
  said = f"{' and '.join(taken)} taken over"
  if not fresh:
    return said
  verb = "starts" if len(fresh) == 1 else "start"
  return f"{said}; {' and '.join(fresh)} {verb} fresh"


def _kinds(parts: Iterable[str]) -> set[str]:
  return {"encoder" if part == "convbert" else "head" for part in parts}


def _check_architecture(
  source: str, found: ConvBertConfig, wanted: ConvBertConfig
) -> None:
  differences = architecture_differences(found, wanted)
  if differences:
    raise UserError(
      f"checkpoint.init_from={source} is another model"
      f" ({'; '.join(differences)}); name its size in"
      " --config=configs/pretrain.py:size=SIZE, or set --config.model.FIELD"
    )


def _check_vocabulary(
  source: str, vocabulary: Sequence[str], records: str
) -> None:
  """Refuses a model whose ids stand for other tokens than the records'."""
  differing = count_other_tokens(vocabulary, _vocabulary_in(records))
  if differing:
    raise UserError(
      f"checkpoint.init_from={source} was trained with another vocabulary than"
      f" that of {records} ({differing:,} of {len(vocabulary):,} tokens"
      " differ); build the records with its vocab.txt"
    )


def _vocabulary_in(folder: str) -> list[str]:
  """Returns the tokens of a folder's vocabulary; none if it has no file."""
  path = epath.Path(folder) / run_folder.VOCABULARY_FILE
  if not path.exists():
    return []
  text = path.read_text()
  return [line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")]
