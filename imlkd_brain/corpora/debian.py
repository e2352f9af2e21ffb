"""Fetches Debian packages without root, and unpacks them.

Authors: IML-KD contributors
"""

import errno
import os
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from imlkd_brain.corpora.building import last_line, need_space
from imlkd_brain.errors import UserError
from imlkd_brain.files import sha256_of


def fetch_packages(packages, cache, deb_dir=None):
    """Find or download a .deb file of each package, and check it.

    Arguments
    ---------
    packages : dict
        Package name to archive component (``main`` or ``non-free``).
    cache : pathlib.Path
        Downloads stay in its ``debs``, apt's lists in its ``apt``.
    deb_dir : pathlib.Path or None
        A folder that has the .deb files already. If not given, apt
        downloads them.

    Returns
    -------
    dict
        Package name to the path of its .deb file.

    Raises
    ------
    UserError
        If a package cannot be had, or a file is broken.
    """
    if shutil.which("dpkg-deb") is None:
        raise UserError(
            "MiniVox is made of Debian packages and `dpkg-deb`, which unpacks "
            "them, is not on this machine: install the package dpkg, or build "
            "the corpus on a Debian or Ubuntu machine and copy its folder here."
        )
    if deb_dir is not None:
        return _debs_in(deb_dir, packages)
    debs = cache / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    # Downloads go to `.partial` and are moved here when they are checked, so
    # that this folder has whole files only.
    found = {
        name: path
        for name in packages
        for path in sorted(debs.glob(f"{name}_*.deb"))
    }
    missing = [name for name in packages if name not in found]
    if missing:
        found.update(_apt_download(missing, packages, cache, debs))
    return {name: found[name] for name in packages}


def _debs_in(deb_dir, packages):
    """Find and check each package's .deb in a folder of the user's."""
    if not deb_dir.is_dir():
        raise UserError(f"--deb-dir {deb_dir}: there is no such folder.")
    found = {}
    for name in packages:
        files = sorted(deb_dir.glob(f"{name}_*.deb"))
        if not files:
            raise UserError(
                f"--deb-dir {deb_dir}: no {name}_*.deb there; get it with "
                f"`apt-get download {name}`, or leave its pack out of --packs."
            )
        found[name] = files[-1]
        if deb_field(files[-1], "Package") != name:
            raise UserError(
                f"{files[-1]}: this is not the Debian package {name}, or it "
                "is broken; download it again."
            )
    return found


def deb_field(path, field):
    """A field of a .deb's control file, empty if it cannot be read."""
    answer = subprocess.run(
        ["dpkg-deb", "--field", str(path), field],
        capture_output=True,
        text=True,
    )
    return answer.stdout.strip()


def _apt(options, *words):
    """Run apt-get with its state in our folder; return code, out and err."""
    command = ["apt-get", "-q", *options, *words]
    answer = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    return answer.returncode, answer.stdout, answer.stderr


def _apt_download(missing, packages, cache, debs):
    """Download packages with apt, sizes and SHA256 checked before the rename."""
    if shutil.which("apt-get") is None:
        raise UserError(
            "MiniVox comes out of Debian packages and there is no `apt-get` "
            "here: on a machine that has it, run `apt-get download "
            f"{' '.join(missing)}`, copy the files and give their folder with "
            "--deb-dir."
        )
    found = {}
    options = _apt_options(cache / "apt" / "main")
    print("asking apt where the packages are ...", flush=True)
    _, _, complaint = _apt(options, "update")
    for component in sorted({packages[name] for name in missing}):
        names = [name for name in missing if packages[name] == component]
        chosen = options
        if component != "main":
            chosen = _component_options(options, cache / "apt", component)
            _, _, complaint = _apt(chosen, "update")
        _, listing, error = _apt(chosen, "--print-uris", "download", *names)
        wanted = {
            file.split("_")[0]: (file, int(size), digest)
            for file, size, digest in re.findall(
                r"^'[^']+' (\S+) (\d+) SHA256:(\w+)$", listing, re.MULTILINE
            )
        }
        gone = [name for name in names if name not in wanted]
        if gone:
            reasons = filter(None, (last_line(complaint), last_line(error)))
            raise UserError(
                f"apt offers no package {', '.join(gone)} "
                f"({'; '.join(reasons)}); check the network and the sources "
                "in /etc/apt, or get the .deb on another Debian machine and "
                "give its folder with --deb-dir."
            )
        found.update(_apt_get_files(chosen, wanted, debs))
    return found


def _apt_options(state):
    """Options that keep apt's lists and cache in ``state``: no root needed."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    options = [
        f"-oDir::State::Lists={state.resolve() / 'lists'}",
        f"-oDir::Cache={state.resolve() / 'cache'}",
        "-oDebug::NoLocking=1",
        "-oAcquire::Languages=none",
        "-oAcquire::Retries=3",
    ]
    if os.geteuid() == 0:
        # The download user may not write to our folder, and apt says so at
        # length; as any other user it downloads without that step anyway.
        options.append("-oAPT::Sandbox::User=root")
    return options


def _component_options(options, state, component):
    """Options with one more source: the system's Debian with ``component``."""
    _, listing, _ = _apt(options, "indextargets", "Created-By: Packages")
    for stanza in listing.split("\n\n"):
        target = dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE))
        if target.get("Origin") == "Debian" and target["Component"] == "main":
            break
    else:
        raise UserError(
            f"the {component} part of Debian is needed and apt's sources in "
            "/etc/apt name no Debian archive; leave uqm out of --packs or give "
            "its .deb with --deb-dir."
        )
    origin = Path(target["Sourcesentry"].rpartition(":")[0])
    key = re.search(
        r"signed-by[:=]\s*(/[^\s\]]+)",
        origin.read_text(encoding="utf-8"),
        re.IGNORECASE,
    )
    signed = f"[signed-by={key.group(1)}] " if key else ""
    source = state / f"{component}.list"
    source.write_text(
        f"deb {signed}{target['Repo-URI']} {target['Release']} {component}\n",
        encoding="utf-8",
    )
    return [
        *_apt_options(state / component),
        f"-oDir::Etc::SourceList={source.resolve()}",
        "-oDir::Etc::SourceParts=/dev/null",
    ]


def _apt_get_files(options, wanted, debs):
    """Download with apt into a scratch folder, and keep the whole files.

    Arguments
    ---------
    options : list of str
        For apt-get.
    wanted : dict
        Package name to (file name, bytes, SHA-256).
    debs : pathlib.Path
        Where whole files go.

    Returns
    -------
    dict
        Package name to path.
    """
    scratch = debs / ".partial"
    scratch.mkdir(exist_ok=True)
    # An interrupted download may have left whole files.
    found = _keep_whole(wanted, scratch, debs)
    left = {name: wanted[name] for name in wanted if name not in found}
    shutil.rmtree(scratch)
    if not left:
        return found
    scratch.mkdir()
    total = sum(size for _, size, _ in left.values())
    # The packages, what they unpack to, and the corpus made of them.
    need_space(debs, 4 * total, f"download and unpack {', '.join(left)}")
    process = subprocess.Popen(
        ["apt-get", "-q", *options, "download", *left],
        cwd=scratch,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    with (
        tqdm(total=total, unit="B", unit_scale=True, desc="download") as bar,
        ThreadPoolExecutor(1) as reader,
    ):
        try:
            complaint = reader.submit(process.stderr.read)
            while process.poll() is None:
                time.sleep(0.2)
                files = [scratch / file for file, _, _ in left.values()]
                here = sum(f.stat().st_size for f in files if f.exists())
                bar.update(min(here, total) - bar.n)
        finally:
            if process.poll() is None:
                process.terminate()
    found.update(_keep_whole(left, scratch, debs))
    broken = [name for name in left if name not in found]
    if broken:
        reason = last_line(complaint.result()) or "size or SHA256 differ"
        raise UserError(
            f"{', '.join(broken)} did not arrive whole ({reason}); run the "
            "same command again, what did arrive is kept."
        )
    return found


def _keep_whole(wanted, scratch, debs):
    """Move files of the right size and SHA-256 from ``scratch`` to ``debs``."""
    found = {}
    for name, (file, size, digest) in wanted.items():
        path = scratch / file
        if (
            path.exists()
            and path.stat().st_size == size
            and sha256_of(path) == digest
        ):
            os.replace(path, debs / file)
            found[name] = debs / file
    return found


def unpack(debs, folder):
    """Unpack packages side by side, each whole or not at all.

    Returns
    -------
    dict
        Package name to its ``usr/share``.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def one(name):
        place, partial = folder / name, folder / f".{name}"
        if not place.exists():
            shutil.rmtree(partial, ignore_errors=True)
            answer = subprocess.run(
                ["dpkg-deb", "-x", str(debs[name]), str(partial)],
                capture_output=True,
                text=True,
                env={**os.environ, "LC_ALL": "C"},
            )
            if "No space left" in answer.stderr:
                raise OSError(errno.ENOSPC, "No space left", str(partial))
            if answer.returncode:
                reason = last_line(answer.stderr) or "no reason given"
                raise UserError(
                    f"{debs[name]}: dpkg-deb cannot unpack it "
                    f"({reason}); delete the file and run the same command "
                    "again."
                )
            os.rename(partial, place)
        return name, place / "usr" / "share"

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(one, name) for name in debs]
        done = tqdm(jobs, desc="unpack", unit="package")
        return dict(job.result() for job in done)
