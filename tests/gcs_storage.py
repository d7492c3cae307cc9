"""Objects of Google Cloud Storage in memory, with its generations.

By https://cloud.google.com/storage/docs/json_api/v1: conditions on generations
and listings in pages. There are no ACLs, versions, holds or folders.
"""

import base64
import dataclasses
import datetime
import hashlib
import itertools
import pathlib
import threading

# A page of a listing; the real one has 1,000. Few, so that pages are turned.
_PAGE = 50
_CONDITIONS = {
  "ifGenerationMatch": lambda there, asked: there == asked,
  "ifGenerationNotMatch": lambda there, asked: there != asked,
}


class Refusal(Exception):
  """An answer that is none of success."""

  def __init__(self, status, message):
    super().__init__(message)
    self.status = status


@dataclasses.dataclass(frozen=True)
class Stored:
  """An object as it was written; never changed."""

  content: bytes
  generation: int
  content_type: str
  created: str
  md5: str


class Storage:
  """What is stored, and who may do what.

  Attributes:
    buckets: content by bucket and name.
    forbidden: buckets of which every request is refused.
    tokens: those that requests carried, None for requests without.
    calls: the kinds of requests there were, a method and a path each.
  """

  def __init__(self):
    self.buckets = {}
    self.forbidden = set()
    self.tokens = set()
    self.calls = set()
    self.lock = threading.Lock()
    self.uploads = {}
    self._generations = itertools.count(1_700_000_000_000_000)

  def objects(self, bucket):
    if bucket in self.forbidden:
      raise Refusal(
        403, f"somebody does not have storage.objects.get access to {bucket}."
      )
    if bucket not in self.buckets:
      raise Refusal(404, "The specified bucket does not exist.")
    return self.buckets[bucket]

  def get(self, bucket, name, query):
    found = self.objects(bucket).get(name)
    asked = query.get("generation")
    if found is None or asked not in (None, str(found.generation)):
      raise Refusal(404, f"No such object: {bucket}/{name}")
    _check(found, query, reading=True)
    return found

  def put(self, bucket, name, content, content_type, query):
    objects = self.objects(bucket)
    _check(objects.get(name), query)
    now = datetime.datetime.now(datetime.UTC)
    content = bytes(content)
    objects[name] = Stored(
      content,
      next(self._generations),
      content_type or "application/octet-stream",
      now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
      base64.b64encode(hashlib.md5(content).digest()).decode(),
    )
    return described(bucket, name, objects[name])

  def delete(self, bucket, name, query):
    self.get(bucket, name, {"generation": query.get("generation")})
    _check(self.objects(bucket)[name], query)
    del self.objects(bucket)[name]

  def listed(self, bucket, query):
    """Returns a page of the objects and folders below a prefix."""
    prefix, between = query.get("prefix", ""), query.get("delimiter")
    after = query.get("pageToken", "")
    size = min(int(query.get("maxResults", _PAGE)), _PAGE)
    found = {}
    for name, stored in sorted(self.objects(bucket).items()):
      inside = name.startswith(prefix) and name >= query.get("startOffset", "")
      if not inside or name >= query.get("endOffset", "\U0010ffff"):
        continue
      head, cut, _ = name[len(prefix) :].partition(between or "\0")
      place = f"{prefix}{head}{cut}" if between and cut else name
      if place > after:
        found.setdefault(place, None if place != name or cut else stored)
    page = dict(itertools.islice(found.items(), size))
    answer = {
      "kind": "storage#objects",
      "items": [described(bucket, n, s) for n, s in page.items() if s],
      "prefixes": [name for name, stored in page.items() if stored is None],
    }
    if len(page) < len(found):
      answer["nextPageToken"] = list(page)[-1]
    return {key: value for key, value in answer.items() if value}


class Files:
  """What is stored, with the few methods of fsspec that the tests call."""

  def __init__(self, storage):
    self._storage = storage

  def put(self, folder, place, recursive):
    assert recursive
    bucket, _, inside = place.partition("/")
    for path in pathlib.Path(folder).rglob("*"):
      if path.is_file():
        name = f"{inside}/{path.relative_to(folder).as_posix()}"
        self._storage.put(bucket, name, path.read_bytes(), None, {})

  def find(self, bucket):
    return [f"{bucket}/{name}" for name in self._storage.buckets[bucket]]

  def exists(self, place):
    bucket, _, name = place.partition("/")
    objects = self._storage.buckets.get(bucket)
    return objects is not None and (not name or name in objects)

  def cat_file(self, place):
    bucket, _, name = place.partition("/")
    return self._storage.buckets[bucket][name].content


def described(bucket, name, stored):
  """Returns the resource of an object."""
  return {
    "kind": "storage#object",
    "id": f"{bucket}/{name}/{stored.generation}",
    "bucket": bucket,
    "name": name,
    "generation": str(stored.generation),
    "metageneration": "1",
    "size": str(len(stored.content)),
    "contentType": stored.content_type,
    "storageClass": "STANDARD",
    "etag": base64.b64encode(str(stored.generation).encode()).decode(),
    "timeCreated": stored.created,
    "updated": stored.created,
    "md5Hash": stored.md5,
  }


def _check(found, query, *, reading=False):
  """Refuses what does not meet the conditions of a request."""
  there = 0 if found is None else found.generation
  for condition, holds in _CONDITIONS.items():
    if condition in query and not holds(there, int(query[condition])):
      not_modified = reading and condition == "ifGenerationNotMatch"
      raise Refusal(
        304 if not_modified else 412,
        "At least one of the pre-conditions you specified did not hold.",
      )
