"""Records built by Apache Beam on many machines, equal to those of `records`.

Where the local builder ends its blocks and shards depends on nothing but the
sizes of all documents in order. So every file is read twice: once for the
sizes, from which one worker cuts all blocks, and once for the text of each
block. What is in between is done by any worker in any order, and again if it
fails: a shard has one name and one content, and appears under its name when it
is complete.

The last worker leaves the journal of a build that wants nothing but its
manifest, which the program that started the pipeline then writes. Until then
the folder is an unfinished build, which this program or the local one finishes.
"""

import contextlib
import dataclasses
import functools
import io
import logging
import os
import re
import shutil
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from convbert_jax import files
from convbert_jax.data import beam_steps as steps
from convbert_jax.data import corpus
from convbert_jax.data.blocks import SPLITS
from convbert_jax.data.build import Build, BuildSettings, note_duplicates
from convbert_jax.data.corpus import Skipped
from convbert_jax.data.journal import (
  JOURNAL,
  Journal,
  finished_manifest,
  identity_of,
)
from convbert_jax.data.manifest import MANIFEST, Manifest, Source, source_of
from convbert_jax.data.progress import BuildProgress
from convbert_jax.data.tokenizer import WordPiece
from convbert_jax.errors import UserError
from convbert_jax.object_store import ObjectStore, local_copy, small_files

_SHARD = re.compile(rf"({'|'.join(SPLITS)})-\d+\.array_record")
# A worker's error reaches the program in words, of most runners in many.
_NAME = f"{UserError.__module__}.{UserError.__name__}"
_USER_ERROR = re.compile(
  rf"{re.escape(_NAME)}: (.+?)(?: \[while running .*)?$", re.MULTILINE
)


def build_records(
  inputs: Sequence[str],
  tokenizer: WordPiece,
  output: str,
  settings: BuildSettings | None = None,
  *,
  options: Sequence[str] = (),
  progress: BuildProgress | None = None,
) -> Manifest:
  """Builds pre-training records with Apache Beam.

  A finished build is left unchanged; an unfinished one is made anew, except
  where only its manifest is missing.

  Args:
    inputs: files, folders and globs, on a file system that all workers share or
      in an object store; see `corpus`.
    tokenizer: encodes the text; saved beside the records.
    output: folder of the records, in such a place as well.
    settings: None for the defaults.
    options: flags of Beam's, as "--runner=FlinkRunner".
    progress: takes notes.

  Returns:
    The manifest, which is also in the folder.

  Raises:
    UserError: if input, folder or options cannot be used, or a setting is out
      of range.
  """
  progress = progress or BuildProgress()
  note_duplicates(tokenizer, progress)
  sources = _find(inputs)
  build = Build(sources, output, settings or BuildSettings(), tokenizer)
  pipeline = _new_pipeline(options)
  if files.is_local(output):
    files.make_folder(output)
  with files.explained_disk_errors(output):
    with small_files(output, (MANIFEST, JOURNAL)) as here:
      build = _with_digests(build, here)
      manifest = build.finished(here)
      if manifest is not None:
        progress.note(f"{output} is already built from this input")
        return manifest
      journal = build.unfinished(here)
      if journal is None:
        journal = build.begin(here, progress)
    if not _is_complete(journal):
      size = sum(source.size for source in sources) / 1e6
      progress.note(f"{len(sources):,} files of {size:,.1f} MB to build from")
      _run(pipeline, build)
    return _finish(build)


def _find(patterns: Sequence[str]) -> tuple[Source, ...]:
  """Returns the input files with their sizes, and without digests."""
  found: dict[str, int] = {}
  for pattern in patterns:
    if files.is_local(pattern):
      paths = corpus.expand_inputs([pattern])
      found |= {path: os.path.getsize(path) for path in paths}
      continue
    readable = {
      path: size
      for path, size in sorted(ObjectStore(pattern).matches().items())
      if corpus.is_readable(path) and os.path.basename(path)[0] not in "._"
    }
    if not readable:
      raise UserError(
        f"{pattern}: no readable file is there: give {corpus.SUPPORTED}"
      )
    found |= readable
  if not found:
    corpus.expand_inputs([])
  return tuple(Source(path, size) for path, size in found.items())


def _new_pipeline(options: Sequence[str]) -> beam.Pipeline:
  words = io.StringIO()
  try:
    with contextlib.redirect_stderr(words):
      parsed = PipelineOptions(list(options))
      parsed.get_all_options()  # Of a value that is none, argparse ends us.
    return beam.Pipeline(options=parsed)
  except SystemExit as error:
    reason = words.getvalue().rpartition("error: ")[2].strip()
    raise UserError(f"the options of Beam's: {reason}") from error
  except (ValueError, ImportError) as error:
    raise UserError(" ".join(str(error).split())) from error


def _with_digests(build: Build, here: str) -> Build:
  """Returns the build with digests, if what is there is known by them."""
  manifest, journal = finished_manifest(here), Journal.load(here)
  if manifest is not None:
    known = identity_of(manifest)["sources"]
  else:
    known = [] if journal is None else journal.identity["sources"]
  if not any(Source(*source).digest for source in known):
    return build
  sources = tuple(_source_of(source.path) for source in build.sources)
  return dataclasses.replace(build, sources=sources)


def _is_complete(journal: Journal) -> bool:
  """Says whether a build wants nothing but its manifest."""
  return journal.position[0] == len(journal.identity["sources"])


def _source_of(path: str) -> Source:
  with local_copy(path) as place:
    return source_of(place)._replace(path=path)


def _run(pipeline: beam.Pipeline, build: Build) -> None:
  """Runs the pipeline to its end.

  Raises:
    UserError: if a worker did.
  """
  _add_steps(pipeline, build)
  # It logs what a worker in this process raises, which is raised here as well.
  logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
  try:
    pipeline.run().wait_until_finish()
  except Exception as error:
    words = str(error)
    if isinstance(error, UserError):
      words = f"{_NAME}: {words}"
    found = _USER_ERROR.search(words)
    if found is None:
      raise
    raise UserError(found[1]) from error


def _add_steps(pipeline: beam.Pipeline, build: Build) -> None:
  """Adds everything from the files to the journal."""
  paths = [source.path for source in build.sources]
  if files.is_local(build.output):
    build = dataclasses.replace(build, output=os.path.abspath(build.output))
  build = dataclasses.replace(build, sources=())  # Of no use to workers.

  def step(function: Any) -> Any:
    return functools.partial(function, build)

  surveys = (
    pipeline
    | "files" >> beam.Create(list(enumerate(paths)))
    | "spread the files" >> beam.Reshuffle()
    | "survey" >> beam.MapTuple(step(steps.survey))
  )
  total = (
    surveys
    | "gather the sizes" >> _together()
    | "cut" >> beam.FlatMap(step(steps.cut))
    | "spread the cuts" >> beam.Reshuffle()
    | "read" >> beam.FlatMap(step(steps.read))
    | "gather the blocks" >> beam.GroupByKey()
    | "encode" >> beam.MapTuple(step(steps.encode))
    | "gather the shards" >> beam.GroupByKey()
    | "write" >> beam.MapTuple(step(steps.write))
    | "add up" >> beam.CombineGlobally(step(steps.add_up))
  )
  (
    surveys
    | "without sizes" >> beam.Map(steps.without_sizes)
    | "gather what was skipped" >> _together()
    | "close" >> beam.Map(step(steps.close), beam.pvalue.AsSingleton(total))
  )


def _together() -> beam.PTransform:
  """Makes one element, an iterable, of all."""
  return beam.WithKeys(0) | beam.GroupByKey() | beam.Values()


def _finish(build: Build) -> Manifest:
  """Writes the manifest, and removes what earlier attempts left."""
  with small_files(build.output, (JOURNAL,)) as here:
    journal = Journal.load(here)
    present = _names_in(build.output)
    wanted = [s.name for n in SPLITS for s in journal.splits[n].shards]
    missing = [name for name in wanted if name not in present]
    if missing or not _is_complete(journal):
      raise UserError(
        f"{build.output} lacks what the workers wrote: it must be a folder that"
        " all of them share with this machine, or one in an object store"
      )
    _remove_others(build.output, present, wanted)
    sources = tuple(Source(*one) for one in journal.identity["sources"])
    build = dataclasses.replace(build, sources=sources)
    skipped = Skipped()
    skipped.restore(journal.skipped)
    return build.finish(here, journal, skipped)


def _names_in(output: str) -> list[str]:
  if files.is_local(output):
    return os.listdir(output)
  return list(ObjectStore(output).files())


def _remove_others(output: str, present: list[str], wanted: list[str]) -> None:
  """Removes shards of other content, and what killed workers left."""
  others = [
    name for name in present if _SHARD.fullmatch(name) and name not in wanted
  ]
  if not files.is_local(output):
    ObjectStore(output).remove(others)
    return
  for name in others:
    os.remove(os.path.join(output, name))
  for name in present:
    if name.startswith(steps.ASIDE):
      shutil.rmtree(os.path.join(output, name), ignore_errors=True)
