"""An acceptability task made from prose, in the format of CoLA.

Half of the sentences are unchanged; in the other half two words are swapped so
that the grammar is wrong: "The list of names" becomes "The of list names".
Telling them apart takes some grammar, which pre-training should have taught.
"""

import os
import random
import re
from collections.abc import Iterable, Iterator, Sequence

from convbert_jax import files
from convbert_jax.data.corpus import Skipped, iter_documents
from convbert_jax.errors import UserError

MIN_WORDS, MAX_WORDS = 6, 24
# Swaps over a longer distance are too easy to see.
MAX_DISTANCE = 6

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
# Words only: names in code and formulas have no grammar.
_SENTENCE = re.compile(
  r"[A-Z][A-Za-z]*(?:[-'][A-Za-z]+)*"
  r"(?:[,;:]? [A-Za-z]+(?:[-'][A-Za-z]+)*)*\."
)
# The full stop of these does not end a sentence.
_ABBREVIATION = re.compile(r" (?:etc|vs|cf|fig|eq|sec|ref|no|[a-z])\.$", re.I)
# Words that precede a noun: swapped with another kind of word, both are wrong.
_LEADING = re.compile(
  "a|an|the|its|their|your|our|every|each|of|in|to|for|from|with|by|at|into"
  "|as|than"
)
# Any longer word, except those that can be nearly anywhere in a sentence: a
# swap with one of them may be correct.
_CONTENT = re.compile(
  "(?!(?:also|then|only|always|often|never|still|already|again|thus|hence"
  "|however|even|just|both|more|most|much|very|well|once|here|there|first|last"
  "|next|later|otherwise|instead|sometimes|either|that|this|these|those|they"
  "|which|what|when|where|while|over|down|back|through|along|about|around"
  "|before|after|since|were|been|have|could|might|must|shall|should|will"
  "|would|does|such|other|same|into|than|with|from|their|your|every|each"
  r"|\w+ly)$)[a-z]{4,}"
)


def write_task(
  text_jsonl_path: str, folder: str, num_train: int, num_dev: int, seed: int
) -> None:
  """Writes `CoLA/train.tsv` and `CoLA/dev.tsv`.

  The two files have sentences of different documents, and no sentence in
  common; half the sentences of each are broken. The same text and seed give
  the same files.

  Args:
    text_jsonl_path: documents, a JSON object {"text": ...} in each row, with
      one paragraph in each line of the text.
    folder: the data folder, created if it does not exist.
    num_train: number of sentences to train on.
    num_dev: number of sentences to evaluate on.
    seed: chooses documents, sentences and words.

  Raises:
    UserError: if the text cannot be read or has too few sentences.
  """
  documents = _documents(text_jsonl_path)
  chance = random.Random(seed)
  chance.shuffle(documents)
  num_sentences = sum(map(len, documents))
  share = num_sentences * num_dev / max(num_train + num_dev, 1)
  pools: dict[str, list[str]] = {"dev": [], "train": []}
  for document in documents:
    pools["dev" if len(pools["dev"]) < share else "train"] += document
  texts = {}
  for split, wanted in (("train", num_train), ("dev", num_dev)):
    found = pools[split]
    if len(found) < wanted:
      raise UserError(
        f"{text_jsonl_path} has {len(found):,} sentences for {split}.tsv and"
        f" {wanted:,} were asked for; give more text or ask for fewer"
      )
    texts[f"{split}.tsv"] = _rows(chance.sample(found, wanted), chance)
  place = os.path.join(folder, "CoLA")
  os.makedirs(place, exist_ok=True)
  for name, text in texts.items():
    files.write_text(os.path.join(place, name), text)


def _documents(path: str) -> list[list[str]]:
  """Returns the sentences of each document that can be broken, each once."""
  skipped = Skipped()
  seen: set[str] = set()
  documents: list[list[str]] = []
  for part in iter_documents(path, skipped=skipped):
    if part.part == 0:
      documents.append([])
    for sentence in _sentences(part.lines):
      # A sentence that cannot be broken would always be an unbroken one.
      if sentence.lower() not in seen and _swaps(sentence.split(" ")):
        seen.add(sentence.lower())
        documents[-1].append(sentence)
  if skipped.counts:
    raise UserError(f"{path}: " + " | ".join(skipped.describe()))
  return documents


def _sentences(lines: Iterable[str]) -> Iterator[str]:
  for line in lines:
    for sentence in _SENTENCE_END.split(line):
      num_words = sentence.count(" ") + 1
      if (
        MIN_WORDS <= num_words <= MAX_WORDS
        and _SENTENCE.fullmatch(sentence)
        and not _ABBREVIATION.search(sentence)
      ):
        yield sentence


def _swaps(words: Sequence[str]) -> list[tuple[int, int]]:
  """Returns the places of pairs of words that can be swapped.

  Words with a capital, a comma or the full stop are not swapped: that would be
  visible without any grammar.
  """
  leading = [i for i, word in enumerate(words) if _LEADING.fullmatch(word)]
  others = [i for i, word in enumerate(words) if _CONTENT.fullmatch(word)]
  return [(i, j) for i in leading for j in others if abs(i - j) <= MAX_DISTANCE]


def _rows(sentences: Sequence[str], chance: random.Random) -> str:
  """Returns lines of source, label, the author's mark and sentence."""
  lines = []
  for number, sentence in enumerate(sentences):
    if number % 2 == 0:
      lines.append(f"prose\t1\t\t{sentence}\n")
      continue
    words = sentence.split(" ")
    first, second = chance.choice(_swaps(words))
    words[first], words[second] = words[second], words[first]
    lines.append(f"prose\t0\t*\t{' '.join(words)}\n")
  return "".join(lines)
