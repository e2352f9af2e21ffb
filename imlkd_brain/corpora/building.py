"""What the builders of corpora share: building, resuming, lists and reports.

One process at a time builds a corpus. A corpus grows in ``.building`` inside its data folder. Its parts (``wav``,
``trials`` and so on) are renamed into place when they are complete, and
``manifest.json`` is written last: a folder without it is not finished. The
working folder keeps the options of the build, so that the same command goes on
with it and another one starts anew.

Authors
 * IML-KD contributors
"""

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from imlkd_brain import files
from imlkd_brain.errors import UserError
from imlkd_brain.locks import LOCK, sole_use

MANIFEST = "manifest.json"
WORK = ".building"
# Manifests of this corpus do not name it: it was the only one at first.
UNNAMED = "MiniVox"


@contextmanager
def sole_build(data_folder):
    """Make the folder and let one build at a time work in it.

    Arguments
    ---------
    data_folder : pathlib.Path
        Its folder, where no other build may be at work.

    Raises
    ------
    UserError
        If the folder cannot be made or written to, or another build is at
        work there.

    Example
    -------
    >>> with sole_build(getfixture("tmp_path") / "corpus"):
    ...     pass
    """
    try:
        data_folder.mkdir(parents=True, exist_ok=True)
        (data_folder / LOCK).touch()
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(
            f"--data_folder {data_folder}: no folder can be made or written "
            f"there ({error.strerror}); choose another."
        ) from None
    with sole_use(data_folder, "build", "--data_folder"):
        yield


def finished(data_folder, options, parts, hint=""):
    """Return the manifest of a finished build, None if there is none.

    Arguments
    ---------
    data_folder : pathlib.Path
        Of the corpus.
    options : dict
        What decides the content of the corpus. ``corpus`` is its name,
        MiniVox if it is left out.
    parts : tuple of str
        Folders of a finished corpus.
    hint : str
        What the message adds to the advice of another ``--data_folder``.

    Returns
    -------
    dict or None

    Raises
    ------
    UserError
        If the folder holds another corpus, a build with other options, or a
        finished build that lost a part.
    """
    path = data_folder / MANIFEST
    corpus = options.get("corpus", UNNAMED)
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        there = manifest["options"]
        other = there.get("corpus", UNNAMED)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{path}: this is not a {corpus} manifest; choose another "
            "--data_folder."
        ) from None
    if other != corpus:
        raise UserError(
            f"{data_folder} holds {other} and not {corpus}; choose another "
            "--data_folder."
        )
    if there != options:
        differs = [key for key in options if there.get(key) != options[key]]
        raise UserError(
            f"{data_folder} holds a {corpus} built with another "
            f"{' and '.join(differs)} ({there.get(differs[0])}); choose another "
            f"--data_folder{hint} or delete this one."
        )
    gone = [name for name in parts if not (data_folder / name).is_dir()]
    if gone:
        raise UserError(
            f"{data_folder}: {', '.join(gone)} of a finished {corpus} is "
            "missing; delete the folder and build it again."
        )
    # An interrupt right after the manifest leaves the working folder.
    shutil.rmtree(data_folder / WORK, ignore_errors=True)
    print(f"{data_folder} is built already; nothing to do.")
    return manifest


def keep_or_drop(data_folder, options, parts):
    """Go on in a working folder of the same options, else start it anew.

    Arguments
    ---------
    data_folder : pathlib.Path
        Of the corpus.
    options : dict
        As for :func:`finished`.
    parts : tuple of str
        Folders of a finished corpus. Those of an unfinished one are moved
        back into the working folder.

    Returns
    -------
    pathlib.Path
        The working folder. ``wav`` is for the speakers' audio, ``rows`` for a
        JSON file of each speaker, which is written when its audio is whole.

    Raises
    ------
    UserError
        If the folder has such parts, and no build of this corpus made them.
    """
    work = data_folder / WORK
    corpus = options.get("corpus", UNNAMED)
    there = [name for name in parts if (data_folder / name).exists()]
    if not work.exists() and there:
        raise UserError(
            f"{data_folder}: there is {', '.join(there)} but no {MANIFEST}, "
            f"so this is no {corpus}; choose another --data_folder. This one "
            "was left as it is."
        )
    path = work / "options.json"
    if files.read_json(path) == options:
        print(f"going on with the unfinished build in {work}")
        # An interrupt among the last renames: take those back.
        for name in there:
            os.rename(data_folder / name, work / name)
        return work
    if work.exists():
        print(
            f"{work} was begun with other options, or is damaged; starting anew"
        )
        shutil.rmtree(work)
    (work / "wav").mkdir(parents=True)
    (work / "rows").mkdir()
    write_json(path, options)
    return work


def finish(data_folder, parts, manifest):
    """Rename the parts into place, write the manifest, remove the rest."""
    for name in parts:
        os.rename(data_folder / WORK / name, data_folder / name)
    write_json(data_folder / MANIFEST, manifest)
    shutil.rmtree(data_folder / WORK)


def need_space(folder, needed, purpose):
    """Stop if the disk has too little space.

    Arguments
    ---------
    folder : pathlib.Path
        Where the files go.
    needed : float
        Bytes.
    purpose : str
        What they are needed for, after "to".

    Raises
    ------
    UserError
        Naming the folder and both sizes.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free / 1e9:.1f} GB are free and about "
            f"{needed / 1e9:.1f} GB are needed to {purpose}; free some space "
            "or choose another --data_folder."
        )


def last_line(text):
    """Return the last line of a program's complaint, empty if there is none.

    Example
    -------
    >>> last_line("warning: this\\nfatal: that\\n")
    'fatal: that'
    """
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def write_json(path, content):
    """Write JSON as manifests have it, whole or not at all."""
    files.write_json(path, content, indent=1)


@contextmanager
def helpers():
    """Give two processes that decode; one that dies ends the build.

    Yields
    ------
    pool : concurrent.futures.ProcessPoolExecutor

    Raises
    ------
    concurrent.futures.process.BrokenProcessPool
        If a process was killed. ``multiprocessing.Pool`` would wait for what
        it had begun for ever.
    """
    pool = ProcessPoolExecutor(
        min(2, os.cpu_count() or 1),
        multiprocessing.get_context("spawn"),
        _begin_helping,
    )
    try:
        yield pool
    except BaseException:
        # What is queued is not begun, and what is begun is not waited for.
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _begin_helping():
    """Leave Ctrl-C to the build, and end with it, also where it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow():
        """Wait for the build's end; what a helper waits for never comes then."""
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def timed(seconds, name):
    """Add the seconds that a block takes to a dict.

    Example
    -------
    >>> seconds = {}
    >>> with timed(seconds, "download"):
    ...     pass
    >>> list(seconds)
    ['download']
    """
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def write_trial_list(path, trials):
    """Write trials, one ``label enrol test`` a line.

    Arguments
    ---------
    path : pathlib.Path
        The file.
    trials : list of tuple
        (label, enrolment, test), the label as a string.

    Returns
    -------
    list of int
        The numbers of target and nontarget trials.
    """
    text = "".join(" ".join(trial) + "\n" for trial in trials)
    files.write_whole(path, text)
    target = sum(trial[0] == "1" for trial in trials)
    return [target, len(trials) - target]


def speaker_table(groups, title):
    """Tabulate speakers, utterances and minutes of a corpus' groups.

    Arguments
    ---------
    groups : dict
        Name to the rows of its speakers, each with ``role`` (``train``,
        ``dev`` or ``test``), ``utterances`` and ``minutes``.
    title : str
        Head of the first column.

    Returns
    -------
    list of str
        The lines, the sums of all groups last.

    Example
    -------
    >>> row = {"role": "dev", "utterances": 3, "minutes": 0.25}
    >>> for line in speaker_table({"one": [row]}, "pack"): print(line)
    pack         train  dev  test   utts     min
    one              0    1     0      3     0.2
    all              0    1     0      3     0.2
    """
    lines = [
        f"{title:<12}{'train':>6}{'dev':>5}{'test':>6}{'utts':>7}{'min':>8}"
    ]
    everyone = [row for rows in groups.values() for row in rows]
    for name, rows in [*groups.items(), ("all", everyone)]:
        train, dev, test = (
            sum(row["role"] == part for row in rows)
            for part in ("train", "dev", "test")
        )
        lines.append(
            f"{name:<12}{train:>6}{dev:>5}{test:>6}"
            f"{sum(row['utterances'] for row in rows):>7}"
            f"{sum(row['minutes'] for row in rows):>8.1f}"
        )
    return lines


def took(seconds):
    """Say how long the parts of a build took.

    Example
    -------
    >>> took({"download": 61.2, "copy": 3.0})
    'built in 61 s download, 3 s copy'
    """
    parts = (f"{value:.0f} s {name}" for name, value in seconds.items())
    return "built in " + ", ".join(parts)
