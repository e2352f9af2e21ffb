"""Runs the trainings of a comparison in parallel, each after its teacher.

Authors: IML-KD contributors
"""

import os
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager

from tqdm import tqdm

from imlkd_brain import locks
from imlkd_brain.comparison.plan import CACHE
from imlkd_brain.comparison.trainings import is_done
from imlkd_brain.errors import UserError

# glibc gives every large buffer back to the system and asks for it again in
# the next layer; keeping them saved a fifth of a training step on a CPU.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**30),
    "MALLOC_TRIM_THRESHOLD_": str(4 * 2**30),
}


@contextmanager
def sole_use(runs):
    """Keep other comparisons out of these runs.

    Comparisons with the same output folder share runs. Two of them at once
    would train in the same folder, or one would remove the teacher's answers
    that the other's trainings read.

    Arguments
    ---------
    runs : list of Run
        Their folders are made and locked.

    Raises
    ------
    UserError
        If another comparison uses one of them.
    """
    with ExitStack() as stack:
        places = {run.folder for run in runs}
        places |= {
            run.teacher_folder.parent for run in runs if not run.public_teacher
        }
        for place in sorted(places):
            stack.enter_context(locks.sole_use(place, "comparison"))
        yield


def drop_caches(trainings, unfinished):
    """Remove the teacher's answers of runs whose trainings are all done.

    Arguments
    ---------
    trainings : list of Training
        All trainings of the comparison.
    unfinished : list of Training
        Those that are still to be done.
    """
    needed = {training.folder.parent for training in unfinished}
    for place in {training.folder.parent for training in trainings} - needed:
        shutil.rmtree(place / CACHE, ignore_errors=True)


def run_trainings(trainings, at_a_time=1, threads=None):
    """Run the trainings that are not done, each after its teacher.

    A failed training does not stop the others.

    Arguments
    ---------
    trainings : list of Training
        From :func:`imlkd_brain.comparison.plan.plan`.
    at_a_time : int
        How many run side by side.
    threads : int, optional
        CPU threads of each.

    Raises
    ------
    UserError
        At the end, if a training has failed.
    """
    waiting = [t for t in trainings if not t.is_done]
    running, failed = [], []
    bar = tqdm(
        total=len(trainings),
        initial=len(trainings) - len(waiting),
        desc="trainings",
        dynamic_ncols=True,
    )
    try:
        while waiting or running:
            for process, training in list(running):
                if process.poll() is None:
                    continue
                running.remove((process, training))
                bar.update()
                drop_caches(trainings, [*waiting, *(t for _, t in running)])
                if process.returncode or not training.is_done:
                    failed.append(training.folder)
            blocked = [t for t in waiting if t.waits_for in failed]
            failed += [t.folder for t in blocked]
            waiting = [t for t in waiting if t not in blocked]
            ready = [
                t
                for t in waiting
                if t.waits_for is None or is_done(t.waits_for)
            ]
            for training in ready[: at_a_time - len(running)]:
                waiting.remove(training)
                running.append((_start(training, threads), training))
                bar.set_postfix_str("/".join(training.folder.parts[-2:]))
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
            f"{len(failed)} of {len(trainings)} trainings failed (first: "
            f"{failed[0]}, see its output.txt); the others are kept. Remove "
            "the cause and run the same command again."
        )


def _start(training, threads):
    """Start one training; its output is added to ``output.txt``."""
    training.folder.mkdir(parents=True, exist_ok=True)
    with open(training.folder / "output.txt", "a") as output:
        return subprocess.Popen(
            training.command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=child_environment(threads),
        )


def child_environment(threads=None):
    """Return the environment for a script that this process starts.

    Arguments
    ---------
    threads : int, optional
        CPU threads of the script; its own choice if not given.

    Returns
    -------
    environment : dict
        Variables that are set for this process keep their values.

    Example
    -------
    >>> child_environment(2)["OMP_NUM_THREADS"]
    '2'
    """
    environment = {**KEEP_MEMORY, **os.environ}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment
