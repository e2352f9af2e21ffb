"""``imlkd enrol`` and ``imlkd identify``.

Authors: IML-KD contributors
"""

import os
from pathlib import Path

from imlkd_brain.commands.common import (
    check_output,
    check_threshold,
    chosen_threshold,
    list_bad,
    open_model,
    say,
)
from imlkd_brain.commands.exit_codes import NO, YES
from imlkd_brain.errors import UserError
from imlkd_brain.files import sha256_of
from imlkd_brain.locks import locked
from imlkd_brain.models.decision import fingerprint
from imlkd_brain.verification.gallery import Gallery, read_gallery
from imlkd_brain.verification.recordings import (
    embed_recordings,
    find_recordings,
)


def enrol(arguments):
    """Add recordings of a speaker to a gallery."""
    name, path = arguments.name, arguments.gallery
    if not name.strip() or not name.isprintable():
        raise UserError(f"NAME {name!r}: give a name that can be printed.")
    check_output(path, "--gallery")
    paths = find_recordings(arguments.files)
    model, _ = open_model(arguments.model)
    mark = fingerprint(model)
    place = Path(path)
    lock = place.with_name(f".{place.name}.lock")
    # The gallery is read and written under the lock: two enrolments side by
    # side must not lose one another.
    with locked(lock, f"{path}: another enrolment is at work"):
        gallery = Gallery(mark)
        if os.path.exists(path):
            gallery = read_gallery(path, mark)
        if arguments.replace:
            gallery.forget(name)
        embedded, bad = embed_recordings(model, paths, "enrolling")
        added, known = [], []
        for one in embedded:
            digest = sha256_of(one.path)
            owner = gallery.owner(digest)
            if owner == name:
                known.append(one.path)
            elif owner is not None:
                bad[one.path] = (
                    f"{one.path}: this recording is enrolled as {owner}; "
                    "give another, or replace that speaker first."
                )
            else:
                gallery.add(name, one.embedding, one.seconds, one.path, digest)
                added.append(one.path)
        if added:
            gallery.write(path)
    if added or known:
        counts = gallery.counts()
        text = (
            f"{name}: {len(added)} added, {counts[name]} in all; "
            f"{len(counts)} speakers in {path}"
        )
        if known:
            text += f"\n{len(known)} were enrolled already"
        content = {"name": name, "added": added, "already": known}
        content |= {"speakers": counts, "gallery": path, "bad": bad}
        say(arguments.json, content, text)
    if len(bad) == len(paths) == 1:
        raise UserError(*bad.values())
    return list_bad(bad, len(paths))


def identify(arguments):
    """Name the speakers of recordings; the exit code says if all are known."""
    paths = find_recordings(arguments.files)
    model, decision = open_model(arguments.model)
    gallery = read_gallery(arguments.gallery, fingerprint(model))
    threshold = chosen_threshold(arguments.threshold, decision)
    embedded, bad = embed_recordings(model, paths, "identifying")
    results, lines = [], []
    for one in embedded:
        scores = gallery.scores(one.embedding)
        best, score = scores[0]
        speaker = None
        if threshold is not None and score > threshold:
            speaker = best
        closest = [
            {"name": name, "score": value}
            for name, value in scores[: arguments.top]
        ]
        if decision is not None:
            for entry in closest:
                entry["probability"] = decision.probability(entry["score"])
        results.append(
            {"file": one.path, "speaker": speaker, "closest": closest}
        )
        said = "not decided" if threshold is None else speaker or "unknown"
        listed = ", ".join(f"{e['name']} {e['score']:.3f}" for e in closest)
        lines.append(f"{one.path}: {said} ({listed})")
    if results:
        say(
            arguments.json,
            {
                "results": results,
                "threshold": threshold,
                "gallery": arguments.gallery,
                "model": model.source,
                "bad": bad,
            },
            "\n".join(lines),
        )
    code = list_bad(bad, len(paths))
    check_threshold(threshold, model)
    return code or (YES if all(one["speaker"] for one in results) else NO)
