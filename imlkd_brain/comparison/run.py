"""Runs the trainings of a comparison in parallel, each after its teacher.

Authors: IML-KD contributors
"""

import os
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager

import pandas as pd
from tqdm import tqdm

from imlkd_brain.comparison.plan import CACHE, is_done, run_folder, test_list
from imlkd_brain.data.trial_audio import locate_known
from imlkd_brain.errors import UserError
from imlkd_brain.locks import locked

# glibc gives every large buffer back to the system and asks for it again in
# the next layer; keeping them saved a fifth of a training step on a CPU.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**30),
    "MALLOC_TRIM_THRESHOLD_": str(4 * 2**30),
}


@contextmanager
def sole_use(jobs):
    """Keeps other comparisons out of this one's runs.

    They share names, and would train the same folder at once or remove the
    teacher's answers that a training here is reading.
    """
    with ExitStack() as stack:
        for place in sorted({current["folder"].parent for current in jobs}):
            place.mkdir(parents=True, exist_ok=True)
            busy = (
                f"{place}: another comparison is at work on this run; "
                "start again when it has ended."
            )
            stack.enter_context(locked(place / ".lock", busy))
        yield


def check_unseen(hparams):
    """Refuses trials with a speaker that a model of the run was trained on."""
    for pair in hparams["pairs"]:
        for run in hparams["runs"]:
            place = run_folder(hparams["output_folder"], pair, run)
            trained = pd.read_csv(place / "csv" / "train.csv")["spk_id"]
            listed = locate_known(
                test_list(hparams, run), hparams["test_folder"]
            )
            known = set(trained) & set(listed.speakers)
            if known:
                raise UserError(
                    f"{test_list(hparams, run)}: {min(known)} is a training "
                    f"speaker of {place.name}; test on others."
                )


def drop_caches(hparams, unfinished):
    """Removes the teacher's answers where no training needs them any more."""
    needed = {current["folder"].parent for current in unfinished}
    for pair in hparams["pairs"]:
        for run in hparams["runs"]:
            place = run_folder(hparams["output_folder"], pair, run)
            if place not in needed:
                shutil.rmtree(place / CACHE, ignore_errors=True)


def run_jobs(hparams, jobs):
    """Runs the trainings in parallel, each after its teacher.

    A failed training does not stop the others; what failed is said at the
    end.
    """
    waiting = [j for j in jobs if not is_done(j["folder"])]
    running, failed = [], []
    bar = tqdm(
        total=len(jobs),
        initial=len(jobs) - len(waiting),
        desc="trainings",
        dynamic_ncols=True,
    )
    try:
        while waiting or running:
            for process, current in list(running):
                if process.poll() is None:
                    continue
                running.remove((process, current))
                bar.update()
                drop_caches(hparams, [*waiting, *(j for _, j in running)])
                if process.returncode or not is_done(current["folder"]):
                    failed.append(current["folder"])
            blocked = [j for j in waiting if j["depends"] in failed]
            failed += [j["folder"] for j in blocked]
            waiting = [j for j in waiting if j not in blocked]
            ready = [
                j
                for j in waiting
                if j["depends"] is None or is_done(j["depends"])
            ]
            for current in ready[: hparams["jobs"] - len(running)]:
                waiting.remove(current)
                running.append((start(hparams, current), current))
                bar.set_postfix_str("/".join(current["folder"].parts[-2:]))
            time.sleep(0.2)
    except BaseException:
        for process, _ in running:
            # Not SIGINT, which is ignored by whatever `nohup ... &` started.
            process.terminate()
        for process, _ in running:
            process.wait()
        raise
    finally:
        bar.close()
    if failed:
        raise UserError(
            f"{len(failed)} of {len(jobs)} trainings failed (first: "
            f"{failed[0]}, see its output.txt); the others are kept, run the "
            "same command again when the cause is removed."
        )


def start(hparams, current):
    """Starts one training with its share of the cores."""
    current["folder"].mkdir(parents=True, exist_ok=True)
    with open(current["folder"] / "output.txt", "a") as output:
        return subprocess.Popen(
            current["command"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=child_environment(hparams["threads"]),
        )


def child_environment(threads=None):
    """Return the environment of a training started by another script.

    Arguments
    ---------
    threads : int, optional
        CPU threads it may use; its own choice without.

    Returns
    -------
    environment : dict
        What is set in this process's own environment wins.

    Example
    -------
    >>> child_environment(2)["OMP_NUM_THREADS"]
    '2'
    """
    environment = {**KEEP_MEMORY, **os.environ}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment
