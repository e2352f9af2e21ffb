"""A copy of a SpeechBrain checkout that patches are made on and tried on."""

import shutil
import subprocess
from pathlib import Path

AUTHOR = ("IML-KD contributors", "imlkd@users.noreply.github.com")


class CheckoutError(Exception):
    """The checkout cannot be used; the message says why in one sentence."""


def copy_of(checkout, folder, revision="HEAD"):
    """Clone a SpeechBrain checkout, so that the original is never changed.

    Arguments
    ---------
    checkout : str or Path
        A git checkout of SpeechBrain, with or without a work tree.
    folder : Path
        Where the copy goes; an older copy there is replaced.
    revision : str
        A branch, tag or commit.

    Returns
    -------
    folder : Path
        The copy's root.

    Raises
    ------
    CheckoutError
        If there is no git checkout of SpeechBrain, or no such revision.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder = Path(folder)
    try:
        git(None, "clone", "--quiet", "--shared", str(checkout), str(folder))
        git(folder, "checkout", "--quiet", "--detach", revision)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        raise CheckoutError(
            f"{checkout}: no git checkout of SpeechBrain with the revision "
            f"{revision} ({reason.strip().splitlines()[-1]}); get one with "
            "`git clone https://github.com/speechbrain/speechbrain` and give "
            "its folder as SPEECHBRAIN=..."
        ) from None
    if not (folder / "speechbrain" / "version.txt").is_file():
        raise CheckoutError(
            f"{checkout}: this git repository is not SpeechBrain "
            "(speechbrain/version.txt is missing); get it with `git clone "
            "https://github.com/speechbrain/speechbrain`."
        )
    return folder


def commit(folder, message):
    """Commit everything in the copy; return the commit's hash."""
    name, address = AUTHOR
    git(folder, "add", "--all")
    git(
        folder,
        *("-c", f"user.name={name}", "-c", f"user.email={address}"),
        *("commit", "--quiet", "--no-verify", "--message", message),
    )
    return git(folder, "rev-parse", "HEAD").strip()


def write_patch(folder, path):
    """Write the copy's last commit as a file that ``git am`` applies."""
    text = git(folder, "format-patch", "-1", "--stdout", "HEAD")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def apply_patch(folder, path):
    """Apply a patch to the copy, as a maintainer would."""
    name, address = AUTHOR
    git(
        folder,
        *("-c", f"user.name={name}", "-c", f"user.email={address}"),
        *("am", "--quiet", str(Path(path).resolve())),
    )


def first_row(folder, rows, recipe):
    """The line of a list of recipes where a recipe's rows begin."""
    lines = (folder / rows).read_text(encoding="utf-8").splitlines()
    return next(i for i, line in enumerate(lines, 1) if f",{recipe}/" in line)


def git(folder, *arguments):
    """Run git in a folder; return what it prints."""
    place = [] if folder is None else ["-C", str(folder)]
    return subprocess.run(
        ["git", *place, *arguments],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
