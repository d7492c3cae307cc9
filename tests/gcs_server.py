"""Google Cloud Storage's JSON API, as far as its clients ask of a flat bucket.

These are gcsfs, google-cloud-storage and TensorStore: parts of objects,
uploads at once and in parts, copies and moves.
"""

import contextlib
import email
import http.server
import json
import re
import sys
import threading
import urllib.parse
import uuid

from gcs_storage import Refusal, Storage, described

_BUCKET = r"(?:/download)?/storage/v1/b/([^/]+)"
_OBJECT = rf"{_BUCKET}/o/([^/]+)"
_UPLOAD = r"(?:/resumable)?/upload/storage/v1/b/([^/]+)/o"


class _Handler(http.server.BaseHTTPRequestHandler):
  """One connection."""

  protocol_version = "HTTP/1.1"
  disable_nagle_algorithm = True  # Or each answer waits.
  storage: Storage

  def log_message(self, *_):
    """Keeps quiet."""

  def do(self):
    parsed = urllib.parse.urlsplit(self.path)
    self.query = dict(urllib.parse.parse_qsl(parsed.query))
    self.body = self._read_body()
    token = self.headers.get("Authorization")
    self.storage.tokens.add(token and token.removeprefix("Bearer "))
    try:
      with self.storage.lock:
        answer = self._route(self.command, parsed.path)
    except Refusal as refusal:
      answer = _refusal(refusal)
    self._send(*answer)

  do_GET = do_POST = do_PUT = do_DELETE = do

  def _route(self, method, path):
    for kind, pattern, answer in _ROUTES:
      found = re.fullmatch(pattern, path)
      if found and re.fullmatch(kind, method):
        self.storage.calls.add(answer.__name__)
        return answer(self, *map(urllib.parse.unquote, found.groups()))
    raise Refusal(501, f"{method} {path} is not served here")

  def bucket(self, bucket):
    self.storage.objects(bucket)
    return _json({"kind": "storage#bucket", "id": bucket, "name": bucket})

  def list(self, bucket):
    return _json(self.storage.listed(bucket, self.query))

  def read(self, bucket, name):
    stored = self.storage.get(bucket, name, self.query)
    if self.query.get("alt") != "media":
      return _json(described(bucket, name, stored))
      return
    status, content, headers = 200, stored.content, {}
    if asked := re.fullmatch(
      r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")
    ):
      first, last = _bounds(*asked.groups(), len(content))
      whole = len(content)
      if first >= whole:
        raise Refusal(416, "The requested range cannot be satisfied.")
      status, content = 206, content[first : last + 1]
      headers["Content-Range"] = f"bytes {first}-{last}/{whole}"
    headers["X-Goog-Generation"] = str(stored.generation)
    headers["X-Goog-Metageneration"] = "1"
    headers["X-Goog-Hash"] = f"md5={stored.md5}"
    headers["Last-Modified"] = self.date_time_string()
    return status, content, stored.content_type, headers

  def delete(self, bucket, name):
    self.storage.delete(bucket, name, self.query)
    return (204,)

  def rewrite(self, bucket, name, to_bucket, to_name):
    query = {"generation": self.query.get("sourceGeneration")}
    stored = self.storage.get(bucket, name, query)
    made = self.storage.put(
      to_bucket, to_name, stored.content, stored.content_type, self.query
    )
    size = str(len(stored.content))
    return _json(
      {"kind": "storage#rewriteResponse", "done": True, "resource": made}
      | {"totalBytesRewritten": size, "objectSize": size}
    )

  def move(self, bucket, name, to_name):
    query = {"generation": self.query.get("sourceGeneration")}
    stored = self.storage.get(bucket, name, query)
    made = self.storage.put(
      bucket, to_name, stored.content, stored.content_type, self.query
    )
    self.storage.delete(bucket, name, {})
    return _json(made)

  def upload(self, bucket):
    if "upload_id" in self.query:
      return self._upload_part(self.query["upload_id"])
    kind, content_type = self.query["uploadType"], self.headers["Content-Type"]
    self.storage.objects(bucket)
    if kind == "resumable":
      about = json.loads(self.body or b"{}")
      name = self.query.get("name") or about["name"]
      key = uuid.uuid4().hex
      kept = self.headers.get("X-Upload-Content-Type")
      self.storage.uploads[key] = (bucket, name, kept, self.query, bytearray())
      place = f"http://{self.headers['Host']}/upload/storage/v1/b/{bucket}/o"
      place += f"?uploadType=resumable&upload_id={key}"
      return 200, b"", None, {"Location": place}
    name, content = self.query.get("name"), self.body
    if kind == "multipart":
      about, content, content_type = _parts(content_type, self.body)
      name = about["name"]
    return _json(
      self.storage.put(bucket, name, content, content_type, self.query)
    )

  def _upload_part(self, key):
    if key not in self.storage.uploads:
      raise Refusal(404, "Upload session not found.")
    bucket, name, content_type, query, content = self.storage.uploads[key]
    asked = self.headers.get("Content-Range", "")
    first, whole = re.fullmatch(
      r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", asked
    ).groups()
    if first is not None and int(first) != len(content):
      raise Refusal(503, f"part {asked} does not follow {len(content)} bytes")
    content += self.body
    if whole != "*" and int(whole) == len(content):
      made = self.storage.put(bucket, name, content, content_type, query)
      del self.storage.uploads[key]
      return _json(made)
      return
    got = {"Range": f"bytes=0-{len(content) - 1}"} if content else {}
    return 308, b"", None, got

  def _read_body(self):
    if self.headers.get("Transfer-Encoding") != "chunked":
      return self.rfile.read(int(self.headers.get("Content-Length", 0)))
    body = b""
    while size := int(self.rfile.readline().split(b";")[0], 16):
      body += self.rfile.read(size)
      self.rfile.readline()
    self.rfile.readline()
    return body

  def _send(self, status, content=b"", content_type=None, headers=None):
    self.send_response(status)
    for name, value in (headers or {}).items():
      self.send_header(name, value)
    if content_type:
      self.send_header("Content-Type", content_type)
    if status not in (204, 304):
      self.send_header("Content-Length", str(len(content)))
    self.end_headers()
    self.wfile.write(content)


_ROUTES = (
  ("GET", _BUCKET, _Handler.bucket),
  ("GET", rf"{_BUCKET}/o", _Handler.list),
  ("GET", _OBJECT, _Handler.read),
  ("DELETE", _OBJECT, _Handler.delete),
  (
    "POST",
    rf"{_OBJECT}/(?:rewrite|copy)To/b/([^/]+)/o/([^/]+)",
    _Handler.rewrite,
  ),
  ("POST", rf"{_OBJECT}/moveTo/o/([^/]+)", _Handler.move),
  ("PUT|POST", _UPLOAD, _Handler.upload),
)


def _json(content, status=200):
  return status, json.dumps(content).encode(), "application/json"


def _refusal(refusal):
  if refusal.status == 304:
    return (304,)
  reasons = {403: "forbidden", 404: "notFound", 412: "conditionNotMet"}
  reason = reasons.get(refusal.status, "backendError")
  said = {"message": str(refusal), "domain": "global", "reason": reason}
  error = {"code": refusal.status, "message": str(refusal), "errors": [said]}
  return _json({"error": error}, refusal.status)


def _bounds(first, last, size):
  """Returns the first and last byte that a Range header asks for."""
  if not first:
    return max(size - int(last), 0), size - 1
  return int(first), min(int(last) if last else size - 1, size - 1)


def _parts(content_type, body):
  """Returns the description, content and type in a multipart upload."""
  boundary = re.search(r'boundary="?([^";]+)"?', content_type)[1].encode()
  line = b"\r\n" if body.startswith(b"--" + boundary + b"\r") else b"\n"
  mark = line + b"--" + boundary
  _, about, media = (line + body).split(mark, maxsplit=2)
  _, _, about = about.partition(2 * line)
  head, _, content = media.rpartition(mark)[0].partition(2 * line)
  kind = email.message_from_bytes(head.strip()).get_content_type()
  return json.loads(about), content, kind


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True

  def handle_error(self, request, client_address):
    """Prints what is wrong here, not that a client went away."""
    if not isinstance(sys.exception(), ConnectionError):
      super().handle_error(request, client_address)


@contextlib.contextmanager
def serve():
  """Serves an empty storage; yields it and its address."""
  storage = Storage()
  handler = type("Handler", (_Handler,), {"storage": storage})
  server = _Server(("127.0.0.1", 0), handler)
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield storage, f"http://127.0.0.1:{server.server_port}"
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
