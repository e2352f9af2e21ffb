"""Unit tests of ``imlkd_brain.corpora.minivox``."""

import json
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from helpers.clips import write_clips

from imlkd_brain.corpora import building
from imlkd_brain.corpora.building import write_json
from imlkd_brain.corpora.minivox import _build_speakers, build, summary
from imlkd_brain.corpora.splits import read_splits, roles
from imlkd_brain.errors import UserError

needs_dpkg = pytest.mark.skipif(
    shutil.which("dpkg-deb") is None, reason="no dpkg-deb here"
)


@pytest.fixture(scope="module")
def debs(tmp_path_factory):
    """A folder with a klettres-data package whose voices are noise."""
    place = tmp_path_factory.mktemp("debs")
    share = place / "tree" / "usr" / "share"
    # 14 clips of 1.5 s make four utterances; every voice may say the same.
    clips = place / "clips"
    write_clips(clips, 14, "ogg", rate=16000)
    for speaker in roles(read_splits(), None):
        voice = speaker.split("-")[1]
        shutil.copytree(clips, share / "klettres" / voice / "alpha")
    (share / "doc" / "klettres-data").mkdir(parents=True)
    (share / "doc" / "klettres-data" / "copyright").write_text("GPL-2+\n")
    control = place / "tree" / "DEBIAN" / "control"
    control.parent.mkdir()
    control.write_text(
        "Package: klettres-data\nVersion: 1-1\nArchitecture: all\n"
        "Maintainer: nobody <nobody@example.org>\nDescription: noise\n"
    )
    subprocess.run(
        ["dpkg-deb", "-b", "-z1", str(place / "tree"), str(place)],
        check=True,
        capture_output=True,
    )
    return place


@needs_dpkg
def test_build_is_whole_recognised_and_its_own(debs, tmp_path, capsys):
    folder = tmp_path / "corpus"
    manifest = build(folder, tiny=True, deb_dir=debs)
    assert not (folder / ".building").exists()
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    assert (folder / manifest["packages"]["klettres-data"]["licence"]).exists()
    for name in ("test.txt", "dev.txt"):
        for line in (folder / "trials" / name).read_text().splitlines():
            label, *files = line.split()
            assert label in "01"
            assert all((folder / "wav" / file).is_file() for file in files)
    assert "klettres" in summary(folder, manifest)
    # A second time nothing is done, not even looking for the package.
    again = build(folder, tiny=True, deb_dir=tmp_path / "nowhere")
    assert again == manifest
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match="built with another"):
        build(folder, packs=["tuxpaint"], deb_dir=debs)


@needs_dpkg
@pytest.mark.parametrize("moment", ["write_trials", "last rename"])
def test_interrupted_build_goes_on(debs, tmp_path, monkeypatch, moment):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if moment == "write_trials":
            patch.setattr("imlkd_brain.corpora.minivox.write_trials", interrupt)
        else:
            whole = write_json
            patch.setattr(
                "imlkd_brain.corpora.building.write_json",
                lambda path, content: interrupt()
                if path.name == "manifest.json"
                else whole(path, content),
            )
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path, tiny=True, deb_dir=debs)
    assert not (tmp_path / "manifest.json").exists()
    rows = tmp_path / ".building" / "rows"
    speakers = {path.stem for path in rows.iterdir()}
    assert len(speakers) == 17
    # One speaker was not finished: half of its files are there.
    (rows / "klettres-ar.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in rows.iterdir()}
    built = []
    whole_build = _build_speakers

    def watch(packs, trees, splits, tiny, work):
        result = whole_build(packs, trees, splits, tiny, work)
        built.extend(
            path.stem
            for path in rows.iterdir()
            if before.get(path) != path.stat().st_mtime_ns
        )
        return result

    monkeypatch.setattr("imlkd_brain.corpora.minivox._build_speakers", watch)
    manifest = build(tmp_path, tiny=True, deb_dir=debs)
    assert built == ["klettres-ar"]
    assert set(manifest["speakers"]) == speakers


@needs_dpkg
def test_too_small_a_disk_is_said_before_unpacking(debs, tmp_path, monkeypatch):
    monkeypatch.setattr(
        building.shutil, "disk_usage", lambda _: SimpleNamespace(free=100)
    )
    with pytest.raises(UserError, match="are needed to unpack and decode"):
        build(tmp_path, tiny=True, deb_dir=debs)
    assert not (tmp_path / ".building" / "unpacked").exists()


@needs_dpkg
def test_mistakes_are_one_sentence(debs, tmp_path):
    def refused(match, folder=None, **options):
        options = {"tiny": True, "deb_dir": debs, **options}
        with pytest.raises(UserError, match=match):
            build(folder or tmp_path / "out", **options)

    refused("not a pack", tiny=False, packs=["tuxpant"])
    refused("no test or no dev", tiny=False, packs=["gcin"])
    refused("no such folder", deb_dir=tmp_path / "nowhere")
    refused("apt-get download tuxpaint", tiny=False, packs=["tuxpaint"])
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "klettres-data_1-1_all.deb").write_bytes(b"!<arch>\n")
    refused("is broken", deb_dir=broken)
    # A corpus of the user's own is never moved or overwritten.
    (tmp_path / "own" / "wav" / "id10001").mkdir(parents=True)
    refused("no MiniVox", folder=tmp_path / "own")
    assert (tmp_path / "own" / "wav" / "id10001").is_dir()


def test_machines_without_apt_are_told_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil,
        "which",
        lambda name: None if name == "apt-get" else "/usr/bin/dpkg-deb",
    )
    with pytest.raises(UserError, match="--deb-dir"):
        build(tmp_path, tiny=True)
