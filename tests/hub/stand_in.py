"""A small Hugging Face Hub on loopback: model repositories, branches, commits, LFS and ranged downloads.

It answers the requests that the real `huggingface_hub` client sends over plain HTTP (`HF_HUB_DISABLE_XET=1`), keeps
every commit as a dictionary of path -> bytes, records what was asked of it, and can break off a download.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml


LFS_SUFFIXES = (".safetensors", ".png")
FIRST_FILES = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}
REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
REVISION = r"(?P<revision>[^/]+)"


@dataclass
class Repository:
    """Commits of one repository; `branches[name][-1]` is the newest commit of a branch."""

    private: bool = False
    branches: dict[str, list[str]] = field(default_factory=dict)
    trees: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, tree: dict[str, bytes], message: str) -> str:
        history = self.branches.setdefault(branch, [])
        sha = hashlib.sha1(f"{branch} {len(self.trees)} {message}".encode()).hexdigest()
        history.append(sha)
        self.trees[sha], self.messages[sha] = tree, message
        return sha

    def resolve(self, revision: str) -> str | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        return revision if revision in self.trees else None


class HubStandIn(ThreadingHTTPServer):
    """A Hub to use as a context manager; `endpoint` goes into `HF_ENDPOINT`.

    Attributes:
        repositories (`dict[str, Repository]`): what was published, by repository id.
        requests (`list[tuple[str, str, str | None]]`): method, path and `Range` header of every request, in order.
        last_byte (`dict[str, int]`): path suffix -> offset in the file at which bodies break off.
        breaks_left (`dict[str, int]`): path suffix -> how often they still do; always, where there is no entry.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.last_byte: dict[str, int] = {}
        self.breaks_left: dict[str, int] = {}

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def storage(self) -> str:
        """Where LFS objects lie: another host name, since on HEAD the client follows redirects to the same host."""
        return f"http://localhost:{self.server_port}/lfs"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.server_close()

    def create(self, repo_id: str, private: bool = False) -> Repository:
        repository = self.repositories[repo_id] = Repository(private=private)
        repository.commit("main", dict(FIRST_FILES), "initial commit")
        return repository

    def break_off(self, path_suffix: str, at_byte: int, times: int | None = None) -> None:
        """Ends bodies of matching files at `at_byte`: always, or `times` times."""
        self.last_byte[path_suffix] = at_byte
        if times is not None:
            self.breaks_left[path_suffix] = times

    def heal(self) -> None:
        self.last_byte.clear()
        self.breaks_left.clear()

    def offset_of_break(self, path: str) -> int | None:
        suffix = next((suffix for suffix in self.last_byte if path.endswith(suffix)), None)
        if suffix is None:
            return None
        if suffix in self.breaks_left:
            if self.breaks_left[suffix] == 0:
                return None
            self.breaks_left[suffix] -= 1
        return self.last_byte[suffix]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubStandIn

    def log_message(self, *arguments):
        """Stays silent: `requests` is the log."""

    def do_GET(self):
        self.dispatch()

    do_HEAD = do_POST = do_PUT = do_GET

    def dispatch(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        method = "GET" if self.command == "HEAD" else self.command
        for route_method, pattern, action in ROUTES:
            found = re.fullmatch(pattern, path)
            if route_method == method and found:
                return action(self, **found.groupdict())
        self.refuse("EntryNotFound", f"no route for {self.command} {path}")

    # Answers

    def reply(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def reply_json(self, value, status: int = 200) -> None:
        self.reply(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def refuse(self, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}
        self.reply(json.dumps({"error": message}).encode(), HTTPStatus.NOT_FOUND, headers)

    def find(self, repo: str, revision: str = "main") -> tuple[Repository, str] | None:
        repository = self.server.repositories.get(repo)
        if repository is None:
            self.refuse("RepoNotFound", "Repository not found")
            return None
        sha = repository.resolve(revision)
        if sha is None:
            self.refuse("RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repository, sha

    # Uploads

    def create_repository(self) -> None:
        wanted = json.loads(self.body)
        repo = f"{wanted.get('organization') or 'someone'}/{wanted['name']}"
        address = {"url": f"{self.server.endpoint}/{repo}", "id": repo}
        if repo in self.server.repositories:
            return self.reply_json({"error": "You already created this model repo", **address}, HTTPStatus.CONFLICT)
        self.server.create(repo, private=bool(wanted.get("private")) or wanted.get("visibility") == "private")
        self.reply_json(address)

    def validate_yaml(self) -> None:
        self.reply_json({"errors": [], "warnings": []})

    def create_branch(self, repo: str, revision: str) -> None:
        if found := self.find(repo):
            repository, sha = found
            if revision in repository.branches:
                return self.reply_json({"error": "Reference already exists"}, HTTPStatus.CONFLICT)
            repository.branches[revision] = [sha]
            self.reply_json({})

    def preupload(self, repo: str, revision: str) -> None:
        if found := self.find(repo, revision):
            repository, sha = found
            answers = []
            for file in json.loads(self.body)["files"]:
                known = repository.trees[sha].get(file["path"])
                mode = "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"
                oid = None if known is None else object_id(file["path"], known)
                answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
            self.reply_json({"files": answers})

    def lfs_batch(self, repo: str) -> None:
        answers = []
        for item in json.loads(self.body)["objects"]:
            answer = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.server.objects:
                answer["actions"] = {"upload": {"href": f"{self.server.endpoint}/lfs/{item['oid']}"}}
            answers.append(answer)
        self.reply_json({"objects": answers, "transfer": "basic"})

    def put_object(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.reply_json({"error": "hash mismatch"}, HTTPStatus.BAD_REQUEST)
        self.server.objects[oid] = self.body
        self.reply(b"")

    def commit(self, repo: str, revision: str) -> None:
        if not (found := self.find(repo, revision)):
            return
        repository, sha = found
        header, *operations = [json.loads(line) for line in self.body.splitlines() if line]
        if header["value"].get("parentCommit") not in (None, sha):
            return self.reply_json({"error": "A commit has happened since."}, HTTPStatus.PRECONDITION_FAILED)
        tree = dict(repository.trees[sha])
        for operation in operations:
            key, value = operation["key"], operation["value"]
            if key == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                tree[value["path"]] = self.server.objects[value["oid"]]
            else:
                del tree[value["path"]]
        new_sha = repository.commit(revision, tree, header["value"]["summary"])
        url = f"{self.server.endpoint}/{repo}/commit/{new_sha}"
        self.reply_json({"commitOid": new_sha, "commitUrl": url, "success": True})

    # Downloads

    def model_info(self, repo: str, revision: str = "main") -> None:
        if found := self.find(repo, revision):
            repository, sha = found
            card = front_matter(repository.trees[sha].get("README.md", b""))
            info = {"id": repo, "sha": sha, "private": repository.private, "tags": card.get("tags", [])}
            info["siblings"] = [{"rfilename": path} for path in sorted(repository.trees[sha])]
            info |= {"cardData": card, **{key: card.get(key) for key in ("pipeline_tag", "library_name")}}
            self.reply_json({name: value for name, value in info.items() if value is not None})

    def tree(self, repo: str, revision: str) -> None:
        if found := self.find(repo, revision):
            repository, sha = found
            self.reply_json([tree_entry(path, content) for path, content in sorted(repository.trees[sha].items())])

    def refs(self, repo: str) -> None:
        if found := self.find(repo):
            branches = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": history[-1]}
                for name, history in found[0].branches.items()
            ]
            self.reply_json({"branches": branches, "tags": [], "converts": []})

    def resolve_file(self, repo: str, revision: str, path: str) -> None:
        if not (found := self.find(repo, revision)):
            return
        repository, sha = found
        content = repository.trees[sha].get(path)
        headers = {"X-Repo-Commit": sha}
        if content is None:
            return self.refuse("EntryNotFound", "Entry not found", headers)
        oid = object_id(path, content)
        if path.endswith(LFS_SUFFIXES):
            headers |= {"ETag": f'"{oid}"', "X-Linked-ETag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            location = f"{self.server.storage}/{oid}/{path}"
            return self.reply(b"", HTTPStatus.FOUND, {**headers, "Location": location})
        self.send_bytes(path, content, {**headers, "ETag": f'"{oid}"'})

    def get_object(self, oid: str, path: str) -> None:
        self.send_bytes(path, self.server.objects[oid], {"ETag": f'"{oid}"'})

    def send_bytes(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        """Sends a file or the asked range of it, up to the byte at which the test wants the connection to break."""
        start = int(found[1]) if (found := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        if start:
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        stop = None if self.command == "HEAD" else self.server.offset_of_break(path)
        if stop is None:
            return self.reply(content[start:], HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK, headers)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
        for name, value in {**headers, "Content-Length": str(len(content) - start)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[start:stop])
        self.close_connection = True


def object_id(path: str, content: bytes) -> str:
    """Sha256 for LFS files and git's blob id for the others, as on the Hub."""
    if path.endswith(LFS_SUFFIXES):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def tree_entry(path: str, content: bytes) -> dict:
    entry = {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
    if path.endswith(LFS_SUFFIXES):
        entry["lfs"] = {"oid": object_id(path, content), "size": len(content), "pointerSize": 130}
    else:
        entry["oid"] = object_id(path, content)
    return entry


def front_matter(readme: bytes) -> dict:
    found = re.match(r"---\n(.*?)\n---\n", readme.decode(), re.DOTALL)
    return yaml.safe_load(found[1]) if found else {}


ROUTES = [
    ("POST", r"/api/repos/create", Handler.create_repository),
    ("POST", r"/api/validate-yaml", Handler.validate_yaml),
    ("POST", rf"/api/models/{REPO}/branch/{REVISION}", Handler.create_branch),
    ("POST", rf"/api/models/{REPO}/preupload/{REVISION}", Handler.preupload),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>\w+)", Handler.put_object),
    ("POST", rf"/api/models/{REPO}/commit/{REVISION}", Handler.commit),
    ("GET", rf"/api/models/{REPO}", Handler.model_info),
    ("GET", rf"/api/models/{REPO}/revision/{REVISION}", Handler.model_info),
    ("GET", rf"/api/models/{REPO}/tree/{REVISION}", Handler.tree),
    ("GET", rf"/api/models/{REPO}/refs", Handler.refs),
    ("GET", rf"/{REPO}/resolve/{REVISION}/(?P<path>.+)", Handler.resolve_file),
    ("GET", r"/lfs/(?P<oid>\w+)/(?P<path>.+)", Handler.get_object),
]
