"""Unit tests of ``imlkd_brain.data.trial_lists``."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from helpers.verification import write
from synthetic import in_processes

from imlkd_brain.data.trial_lists import (
    OFFICIAL_SOURCE,
    find_list,
)
from imlkd_brain.errors import UserError

GOOD = "1 a/s/1 a/s/2\n0 a/s/1 b/s/1\n"


def test_find_list(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    (two / "meta").mkdir(parents=True)
    one.mkdir()
    folders = f"{one}, {two}"
    assert find_list(None, folders, "save") is None
    with pytest.raises(UserError, match="hard2.txt is neither in .*ac.uk"):
        find_list("https://x.ac.uk/list_test_hard2.txt", folders)
    url = "https://nowhere.invalid/meta/veri_test2.txt"
    (two / "meta" / "veri_test2.txt").write_text("1 a b")
    found = str(two / "meta" / "veri_test2.txt")
    assert find_list(url, folders, "save") == found
    assert find_list("veri_test2.txt", folders, "save") == found
    assert find_list(found, folders, "save") == found
    (one / "veri_test2.txt").write_text("1 a b")
    assert find_list(url, folders, "save") == str(one / "veri_test2.txt")
    with pytest.raises(
        UserError, match=r"x.txt: no such trial list.*\(Vox1-O, Vox1-E"
    ):
        find_list("x.txt", folders, "save")


def test_a_list_is_downloaded_whole_or_not_at_all(tmp_path, monkeypatch):
    url = "https://nowhere.invalid/meta/veri_test2.txt"
    save = tmp_path / "save"

    def broken_off(source, path, replace_existing):
        with open(path, "w") as stream:
            stream.write("1 a")
        raise ConnectionResetError("gone")

    def complete(source, path, replace_existing):
        with open(path, "w") as stream:
            stream.write("1 a b")

    monkeypatch.setattr(
        "imlkd_brain.data.trial_lists.download_file", broken_off
    )
    for _ in range(2):
        with pytest.raises(UserError, match=r"cannot be downloaded \(gone\)"):
            find_list(url, str(tmp_path), str(save))
    monkeypatch.setattr("imlkd_brain.data.trial_lists.download_file", complete)
    expected = str(save / "veri_test2.txt")
    assert find_list(url, str(tmp_path), str(save)) == expected
    assert (save / "veri_test2.txt").read_text() == "1 a b"
    # It is kept: the next run needs no line.
    monkeypatch.setattr(
        "imlkd_brain.data.trial_lists.download_file", broken_off
    )
    assert find_list(url, str(tmp_path), str(save)) == expected
    assert [path.name for path in save.iterdir()] == ["veri_test2.txt"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<html><body>Please log in</body></html>\n", "is no trial list"),
        ("", "is no trial list"),
        ("1 a/s/1.wav a/s/2.wav\n" * 3, "3 trials come, expected 37611"),
    ],
)
def test_what_is_no_whole_list_is_not_kept(
    tmp_path, monkeypatch, text, problem
):
    """A page of the server, or a part of an official list."""

    def download(source, path, replace_existing):
        with open(path, "w") as stream:
            stream.write(text)

    monkeypatch.setattr("imlkd_brain.data.trial_lists.download_file", download)
    with pytest.raises(UserError, match=f"cannot be downloaded .*{problem}"):
        find_list(
            f"{OFFICIAL_SOURCE}veri_test2.txt", str(tmp_path), str(tmp_path)
        )
    assert not list(tmp_path.iterdir())


class OneList(BaseHTTPRequestHandler):
    """A server of one trial list, which counts its downloads."""

    downloads = 0

    def do_GET(self):
        type(self).downloads += 1
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"1 a b")

    def log_message(self, *_):
        pass


def test_processes_that_train_together_download_a_list_once(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), OneList)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/veri_test2.txt"
    save = tmp_path / "save"
    try:
        found = in_processes(
            2, tmp_path, lambda: find_list(url, str(tmp_path), str(save))
        )
    finally:
        server.shutdown()
    assert found == [str(save / "veri_test2.txt")] * 2
    assert [path.read_text() for path in save.iterdir()] == ["1 a b"]
    assert OneList.downloads == 1


def test_official_lists_are_found_by_name(tmp_path):
    """Under their official file names, with the source if they are absent."""
    with pytest.raises(UserError, match="veri_test2.txt.*robots.ox.ac.uk"):
        find_list("Vox1-O", tmp_path)
    (tmp_path / "meta").mkdir()
    expected = write(tmp_path / "meta" / "list_test_hard2.txt", GOOD)
    assert find_list("Vox1-H", tmp_path) == str(expected)
    assert find_list("meta/list_test_hard2.txt", tmp_path) == str(expected)
    with pytest.raises(UserError, match="Vox2: no such trial list"):
        find_list("Vox2", tmp_path)
