"""Files of public git repositories: a commit cloned, and read without a tree.

Authors: IML-KD contributors
"""

import os
import re
import shutil
import subprocess
from contextlib import suppress

from tqdm import tqdm

from imlkd_brain.corpora.building import last_line, need_space
from imlkd_brain.errors import UserError


class GitSource:
    """Files out of a git directory, which needs no work tree.

    Only the objects that are asked for are read, so a copy may lack others.

    Arguments
    ---------
    folder : pathlib.Path
        The git directory.
    commit : str
        The commit in it.
    repository : str
        Where it comes from, for messages.
    """

    def __init__(self, folder, commit, repository):
        self.folder, self.commit = folder, commit
        self.repository = repository
        self.process = None

    def __str__(self):
        return str(self.folder)

    def names(self, folders):
        """The paths of the files in some folders."""
        listing = git(
            *(f"--git-dir={self.folder}", "ls-tree", "-r", "-z"),
            *("--name-only", self.commit, *folders),
        )
        if listing.returncode:
            raise self._broken(listing.stderr.decode(errors="replace"))
        return set(listing.stdout.decode().split("\0")) - {""}

    def read(self, name):
        """A file's bytes."""
        if self.process is None:
            self.process = subprocess.Popen(
                ["git", f"--git-dir={self.folder}", "cat-file", "--batch"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        with suppress(BrokenPipeError):  # git says why below
            self.process.stdin.write(f"{self.commit}:{name}\n".encode())
            self.process.stdin.flush()
        head = self.process.stdout.readline().split()
        if len(head) == 3 and head[1] == b"blob":
            data = self.process.stdout.read(int(head[2]) + 1)
            if len(data) == int(head[2]) + 1:
                return data[:-1]
        if len(head) == 2:
            raise self._broken(f"{name} is {head[1].decode()}")
        # git has ended, or never began to answer.
        self.process.terminate()
        raise self._broken(self.process.stderr.read().decode(errors="replace"))

    def close(self):
        """End git."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for stream in (
                self.process.stdin,
                self.process.stdout,
                self.process.stderr,
            ):
                with suppress(BrokenPipeError):
                    stream.close()

    def _broken(self, complaint):
        """What to tell about a git directory that lacks objects."""
        reason = last_line(complaint) or "git gave no reason"
        return UserError(
            f"{self.folder}: git cannot read the corpus there ({reason}); "
            f"clone {self.repository} anew."
        )


def git(*words):
    """Run git and keep what it says."""
    if shutil.which("git") is None:
        raise UserError(
            "the corpus is read with git, and there is no `git` here: install "
            "it, or give a folder with the corpus' files where the builder "
            "takes one."
        )
    return subprocess.run(["git", *words], capture_output=True)


def open_git(folder, commit, repository, option):
    """Find a commit in a git directory or in a clone.

    Arguments
    ---------
    folder : pathlib.Path
        The user's.
    commit : str
        What it must have.
    repository : str
        Where to clone it from, for the message.
    option : str
        That the user gave the folder with.

    Returns
    -------
    GitSource or None
        None if the folder is neither.

    Raises
    ------
    UserError
        If the commit is not there.
    """
    for place in (folder, folder / ".git"):
        if not (place / "objects").is_dir():
            continue
        answer = git(
            f"--git-dir={place}", "cat-file", "-e", f"{commit}^{{commit}}"
        )
        if answer.returncode:
            raise UserError(
                f"{option} {folder}: this git directory has no commit "
                f"{commit}; clone {repository}, which has it."
            )
        return GitSource(place, commit, repository)
    return None


def clone(folder, repository, commit, size, hint):
    """Fetch one commit alone, whole or not at all.

    Arguments
    ---------
    folder : pathlib.Path
        The git directory to be; nothing is done if it is there.
    repository, commit : str
        What is fetched.
    size : float
        Bytes that it needs, with what is made of it.
    hint : str
        What else the user can do, for the message.

    Raises
    ------
    UserError
        If there is no git, no network or no room.
    """
    if folder.exists():
        return
    partial = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    need_space(folder.parent, size, f"clone {repository}")
    answer = git("init", "--quiet", "--bare", str(partial))
    complaint = answer.stderr.decode(errors="replace")
    if answer.returncode == 0:
        print(f"fetching {repository}", flush=True)
        complaint = _fetch(partial, repository, commit)
    if complaint is not None:
        raise UserError(
            f"{repository} could not be cloned "
            f"({last_line(complaint) or 'git gave no reason'}); run the same "
            f"command again where there is network, or {hint}."
        )
    os.rename(partial, folder)


def _fetch(folder, repository, commit):
    """Fetch with a progress bar; return git's complaint, or None."""
    command = ["git", f"--git-dir={folder}", "fetch", "--depth=1"]
    process = subprocess.Popen(
        [*command, "--progress", repository, commit],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        # git must fail and not ask for a password.
        env={**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
    )
    said = ""
    with tqdm(total=100, unit="%", desc="clone") as bar:
        try:
            # git ends its lines of progress with a carriage return.
            for line in process.stderr:
                found = re.match(r"Receiving objects:\s+(\d+)%", line)
                if found:
                    bar.update(int(found.group(1)) - bar.n)
                else:
                    said += line
        except BaseException:
            process.terminate()
            raise
        finally:
            process.wait()
    return said if process.returncode else None
