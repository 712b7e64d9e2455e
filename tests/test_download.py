"""Downloads: from a server of the test's own, which misbehaves in every way that servers do."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time

import numpy as np
import pytest

from engine.checkpoints import catalogue, fetch
from engine.checkpoints.catalogue import CATALOGUE, Published
from engine.checkpoints.download import check_address, download, part_of
from engine.errors import Cancelled, DownloadError, ParameterError, WeightsError

DATA = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8).tobytes()
SHA = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """cut: bytes after which each connection ends; ranges: whether it can go on in the middle;
    silent: it accepts and says nothing; silent_after: what was sent; elsewhere: where it sends its
    visitors; status: an error."""

    daemon_threads = True
    cut = silent = silent_after = status = 0
    ranges, elsewhere, data, wrong_range = True, "", DATA, False

    def __init__(self):
        self.asked, self.released = [], threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/model.ckpt"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        if server.silent:
            server.released.wait(20)
            return
        if server.status or server.elsewhere:
            self.send_response(server.status or 302)
            self.send_header("Location", server.elsewhere)
            self.end_headers()
            return
        start = 0
        if self.headers.get("Range") and server.ranges:
            start = int(self.headers["Range"][6:-1])
            self.send_response(206)
            shown = start + 7 if server.wrong_range else start
            self.send_header("Content-Range", f"bytes {shown}-{len(DATA) - 1}/{len(DATA)}")
        else:
            self.send_response(200)
        body = server.data[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut] if server.cut else body)
        if server.silent_after:
            self.wfile.flush()
            server.released.wait(20)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")  # a proxy of this machine's shall not see the test
    made = Server()
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    made.released.set()
    made.shutdown()
    made.server_close()


def get(server, tmp_path, **more):
    return download(server.address, tmp_path / "m" / "model.ckpt", len(DATA), SHA, **more)


def left(tmp_path):
    return sorted(p.name for p in tmp_path.rglob("*") if p.is_file())


def test_whole(server, tmp_path):
    seen = []
    path = get(server, tmp_path, progress=lambda done, size: seen.append(done / size))
    assert path.read_bytes() == DATA and left(tmp_path) == ["model.ckpt"]
    assert seen == sorted(seen) and seen[-1] == 1
    get(server, tmp_path)  # it is there: nothing is fetched again
    assert server.asked == [None]


def test_cut_in_the_middle_and_gone_on_with(server, tmp_path):
    server.cut = 1_000_000
    assert get(server, tmp_path).read_bytes() == DATA
    assert server.asked == [None, "bytes=1000000-", "bytes=2000000-"]


def test_cut_again_and_again_keeps_the_part_for_the_next_time(server, tmp_path):
    server.cut = 500_000
    with pytest.raises(DownloadError, match="cut|too early") as error:
        get(server, tmp_path)
    assert "goes on" in error.value.remedy
    assert left(tmp_path) == ["model.ckpt.part"]
    size = part_of(tmp_path / "m" / "model.ckpt").stat().st_size
    server.cut, server.asked = 0, []
    assert get(server, tmp_path).read_bytes() == DATA
    assert server.asked == [f"bytes={size}-"]


def test_a_server_that_cannot_go_on_begins_anew(server, tmp_path):
    part = part_of(tmp_path / "m" / "model.ckpt")
    part.parent.mkdir()
    part.write_bytes(b"x" * 1000)
    server.ranges = False
    assert get(server, tmp_path).read_bytes() == DATA


def test_a_server_that_goes_on_elsewhere_is_not_believed(server, tmp_path):
    part = part_of(tmp_path / "m" / "model.ckpt")
    part.parent.mkdir()
    part.write_bytes(DATA[:1000])
    server.wrong_range = True
    assert get(server, tmp_path).read_bytes() == DATA  # asked again, from the beginning
    assert server.asked == ["bytes=1000-", None]


@pytest.mark.parametrize("data", [b"\0" + DATA[1:], DATA[:-5], DATA + b"more", b"<html>no</html>"])
def test_a_wrong_file_is_removed(server, tmp_path, data):
    server.data = data
    with pytest.raises(DownloadError) as error:
        get(server, tmp_path)
    if len(data) >= len(DATA):
        assert "SHA-256 is wrong" in error.value.sentence
        assert left(tmp_path) == []
    else:  # it may be the beginning of the right one: the part is only a part
        assert left(tmp_path) == ["model.ckpt.part"]


def test_a_wrong_beginning_is_found_out(server, tmp_path):
    part = part_of(tmp_path / "m" / "model.ckpt")
    part.parent.mkdir()
    part.write_bytes(b"y" * 1000)
    with pytest.raises(DownloadError, match="SHA-256 is wrong"):
        get(server, tmp_path)
    assert left(tmp_path) == []


@pytest.mark.parametrize("after", [0, 500_000])
def test_a_server_that_never_answers(server, tmp_path, after):
    server.silent, server.cut, server.silent_after = not after, after, bool(after)
    begun = time.monotonic()
    with pytest.raises(DownloadError, match="does not answer|was cut") as error:
        get(server, tmp_path, silence=0.4)
    assert time.monotonic() - begun < 15 and "Try again" in error.value.remedy


def test_cancelled_while_the_server_is_silent(server, tmp_path):
    server.silent = True
    begun = time.monotonic()

    def check():
        if time.monotonic() - begun > 0.5:
            raise Cancelled()

    with pytest.raises(Cancelled):
        get(server, tmp_path, check=check)
    assert time.monotonic() - begun < 5  # though the server may be silent for 30 s


def test_no_server(tmp_path):
    free = Server()
    address = free.address
    free.server_close()
    with pytest.raises(DownloadError, match="cannot be reached"):
        download(address, tmp_path / "model.ckpt", 10, SHA)


def test_moved_away(server, tmp_path):
    server.status = 404
    with pytest.raises(DownloadError, match="404"):
        get(server, tmp_path)
    assert len(server.asked) == 1


def test_only_safe_addresses_are_followed(server, tmp_path):
    for bad in ("file:///etc/hosts", "http://example.org/x", "ftp://127.0.0.1/x", "http://[", ""):
        with pytest.raises(DownloadError, match="not safe"):
            check_address(bad)
    server.elsewhere = "http://example.org/x"
    with pytest.raises(DownloadError, match="not safe"):
        get(server, tmp_path)
    assert len(server.asked) == 1


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "m").write_text("a file")
    with pytest.raises(DownloadError, match="cannot be written"):
        get(server, tmp_path)


def test_a_full_disk(tmp_path):
    with pytest.raises(DownloadError, match="too full"):
        download("https://127.0.0.1/x", tmp_path / "x", 1 << 60, SHA)


@pytest.fixture
def offered(server, monkeypatch):
    """The server's file as a published model."""
    item = Published("thing", "Thing", "https://x", "MIT", False, "model.ckpt", len(DATA),
                     server.address, SHA)  # fmt: skip
    monkeypatch.setattr(catalogue, "CATALOGUE", (item,))
    return item


def test_a_licence_that_was_not_accepted(offered, server, tmp_path):
    with pytest.raises(ParameterError, match="licence of Thing has not been accepted: MIT"):
        fetch.fetch_model("thing", False, tmp_path)
    assert not server.asked and left(tmp_path) == []


def test_a_whole_file_that_is_no_model_leaves_nothing(offered, tmp_path):
    with pytest.raises(WeightsError):
        fetch.fetch_model("thing", True, tmp_path)
    assert not list(tmp_path.rglob("*"))


def test_an_unfinished_model_stays_in_the_folder_of_downloads(offered, server, tmp_path):
    server.cut = 500_000
    with pytest.raises(DownloadError):
        fetch.fetch_model("thing", True, tmp_path)
    assert left(tmp_path) == ["thing-model.ckpt.part"]


def test_the_catalogue_tells_no_more_than_is_known():
    assert {p.key for p in CATALOGUE} >= {"triposr", "openlrm-base"}
    for item in CATALOGUE:
        assert item.licence and item.page.startswith("https://")
        assert item.noncommercial == ("NC" in item.licence)
        assert bool(item.address) == (len(item.sha256) == 64)
        if not item.address:
            with pytest.raises(DownloadError, match="not downloaded by Triplane"):
                fetch.fetch_model(item.key, True, "nowhere")
