"""Downloads against a real server on the loopback address: whole, cut, wrong, absent, and not reachable."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from bench.command_data import app
from tasks import locations
from tasks.base import TaskError
from tasks.data import Catalogue, DataSet, download
from tasks.data_download import download_file
from tasks.data_files import digest

CONTENT = b"SMILES,text\n" + b"".join(b"C%s,row %d\n" % (b"C" * (i % 50), i) for i in range(20_000))
HASHES = digest(CONTENT)


@dataclass
class Server:
    """What the server does, and what it was asked for."""

    url: str
    content: bytes = CONTENT
    cuts: list[int] = field(default_factory=list)  # after how many bytes to hang up, request by request
    ranges: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.requests.append((self.path, asked))
            if self.path != "/file.csv":
                self.send_error(404)
                return
            start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1)) if asked and state.ranges else 0
            if start >= len(state.content):
                self.send_error(416)
                return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cuts.pop(0)] if state.cuts else body)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{http.server_port}/file.csv")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv(locations.DATA_VARIABLE, raising=False)
    monkeypatch.setenv(locations.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


@pytest.fixture
def dataset(tmp_path, server, cache) -> DataSet:
    source = {"file": "far/file.csv", "url": server.url, "sha256": HASHES.sha256, "rows": 20_000}
    description = {"columns": {"smiles": "SMILES"}, "relative_to": "data", "splits": {"test": source}}
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(description))
    return Catalogue().get(tmp_path / "far.yaml")


def test_whole(dataset, server, cache, capfd):
    assert download(dataset) == [cache / "far" / "file.csv"]
    assert len(dataset.rows("test")[0]) == 20_000
    assert not list(cache.rglob("*.part"))
    assert "far/file.csv" in capfd.readouterr().err  # the progress bar
    assert download(dataset) == []
    assert len(server.requests) == 1


def test_damaged_in_the_cache_is_replaced(dataset, cache):
    download(dataset, progress=False)
    (cache / "far" / "file.csv").write_bytes(CONTENT[:-5])
    with pytest.raises(TaskError, match="is not the file that is described"):
        dataset.rows("test")
    assert download(dataset, progress=False) == [cache / "far" / "file.csv"]
    assert len(dataset.rows("test")[0]) == 20_000


def test_another_file_of_the_user_is_left_alone(dataset, server, tmp_path, monkeypatch):
    theirs = tmp_path / "theirs" / "far" / "file.csv"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("SMILES\nC\n")
    monkeypatch.setenv(locations.DATA_VARIABLE, str(tmp_path / "theirs"))
    with pytest.raises(TaskError, match="Move it away"):
        download(dataset, progress=False)
    assert theirs.read_text() == "SMILES\nC\n"
    assert server.requests == []


def test_cut_connection_is_resumed(dataset, server):
    server.cuts = [100_000, 50_000]
    download(dataset, progress=False)
    assert [asked for _, asked in server.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert len(dataset.rows("test")[0]) == 20_000


def test_cut_too_often_keeps_the_part_for_the_next_call(dataset, server, cache):
    server.cuts = [10_000, 10_000, 10_000]
    with pytest.raises(TaskError, match=r"cut 3 times .*; 30,000 bytes are kept in .*file\.csv\.part"):
        download(dataset, progress=False)
    assert not (cache / "far" / "file.csv").exists()
    download(dataset, progress=False)
    assert server.requests[-1][1] == "bytes=30000-"
    assert len(dataset.rows("test")[0]) == 20_000


def test_server_without_ranges_begins_anew(dataset, server):
    server.ranges = False
    server.cuts = [100_000]
    download(dataset, progress=False)
    assert len(dataset.rows("test")[0]) == 20_000


def test_part_that_is_longer_than_the_file(dataset, server, cache):
    (cache / "far").mkdir(parents=True)
    (cache / "far" / "file.csv.part").write_bytes(CONTENT + b"more")
    download(dataset, progress=False)
    assert [asked for _, asked in server.requests] == [f"bytes={len(CONTENT) + 4}-", None]


def test_part_that_is_whole_needs_no_request(dataset, server, cache):
    (cache / "far").mkdir(parents=True)
    (cache / "far" / "file.csv.part").write_bytes(CONTENT)
    download(dataset, progress=False)
    assert server.requests == []
    assert len(dataset.rows("test")[0]) == 20_000


def test_part_without_a_hash_is_not_trusted(server, tmp_path):
    target = tmp_path / "file.csv"
    (tmp_path / "file.csv.part").write_bytes(b"something else")
    download_file(server.url, target)
    assert target.read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None]


def test_wrong_hash_leaves_nothing(server, tmp_path):
    server.content = b"<html>please log in</html>"
    came = digest(server.content)
    for key in ("sha256", "git_blob"):
        with pytest.raises(TaskError, match="not the file that was expected") as caught:
            download_file(server.url, tmp_path / "file.csv", **{key: getattr(HASHES, key)})
        assert getattr(HASHES, key) in str(caught.value)
        assert getattr(came, key) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_right_git_blob(server, tmp_path):
    download_file(server.url, tmp_path / "file.csv", git_blob=HASHES.git_blob)
    assert (tmp_path / "file.csv").read_bytes() == CONTENT


def test_not_found(server, tmp_path):
    with pytest.raises(TaskError, match=r"/gone answers 404 Not Found; the file can also be put by hand at"):
        download_file(server.url.replace("file.csv", "gone"), tmp_path / "file.csv")


def test_offline_is_one_message(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/file.csv"
    with pytest.raises(TaskError, match=r"cannot reach 127\.0\.0\.1 .*no network\?.*MOLGRAFT_DATA") as caught:
        download_file(url, tmp_path / "file.csv")
    assert "\n" not in str(caught.value)


def test_two_at_once_download_once(dataset, server):
    failures: list[BaseException] = []

    def fetch() -> None:
        try:
            download(dataset, progress=False)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(server.requests) == 1


def test_first_alternative_with_an_address_is_downloaded(dataset, server, tmp_path, cache):
    text = yaml.safe_load(dataset.yaml.read_text())
    substitute = {"file": "near.csv"}
    text["splits"] = {"train": [*[text["splits"]["test"]], substitute], "test": [substitute, text["splits"]["test"]]}
    dataset.yaml.write_text(yaml.safe_dump(text))
    cache.mkdir(parents=True)
    (cache / "near.csv").write_text("SMILES\nC\n")
    both = Catalogue().get(dataset.yaml)
    assert both.source("train").file == "near.csv"
    assert download(both, progress=False) == [cache / "far" / "file.csv"]  # the preferred one, though another served
    assert both.source("train").file == "far/file.csv"
    assert both.source("test").file == "near.csv"


def test_nothing_to_download_from(dataset, cache):
    dataset.yaml.write_text("columns: {smiles: SMILES}\nrelative_to: data\nsplits: {test: gone.csv}\n")
    with pytest.raises(TaskError, match="no public address"):
        download(Catalogue().get(dataset.yaml), progress=False)


def test_command_get(dataset, cache):
    done = CliRunner().invoke(app, ["get", str(dataset.yaml)])
    assert done.exit_code == 0
    assert f"downloaded {cache / 'far' / 'file.csv'}" in done.stdout
