"""``imlkd verify`` and ``imlkd embed``.

Authors: IML-KD contributors
"""

import numpy as np
import torch

from imlkd_brain.commands.common import (
    check_output,
    check_threshold,
    chosen_threshold,
    list_bad,
    open_model,
    say,
)
from imlkd_brain.commands.exit_codes import NO, YES
from imlkd_brain.files import in_place_of
from imlkd_brain.models.decision import fingerprint
from imlkd_brain.verification.recordings import (
    embed_recordings,
    find_recordings,
)
from imlkd_brain.verification.scoring import enrol_models, score_trials

SHORT_SECONDS = 2.0  # a hint below this


def verify(arguments):
    """Compare two recordings; the exit code is the decision."""
    sides = [find_recordings([name]) for name in (arguments.a, arguments.b)]
    model, decision = open_model(arguments.model)
    embeddings, seconds, bad = [], [], {}
    for paths in sides:
        embedded, unusable = embed_recordings(model, paths)
        bad.update(unusable)
        if not embedded:
            list_bad(unusable, len(paths))
        rows = torch.stack([one.embedding for one in embedded])
        # One recording is not scaled, so that scores are verify.py's.
        if len(rows) > 1:
            rows = enrol_models(rows, [list(range(len(rows)))])
        embeddings.append(rows)
        seconds.append(sum(one.seconds for one in embedded))
    score = score_trials(*embeddings, torch.tensor([[0, 0]])).item()
    threshold = chosen_threshold(arguments.threshold, decision)
    probability = None
    if decision is not None:
        probability = decision.probability(score, arguments.prior)
    same = None if threshold is None else score > threshold
    lines = [f"score        {score:.3f}"]
    if probability is not None:
        lines.append(f"probability  {probability:.3f} (one speaker)")
    if threshold is not None:
        lines.append(f"threshold    {threshold:.3f}")
        lines.append(
            f"decision     {'one speaker' if same else 'two speakers'}"
        )
    if min(seconds) < SHORT_SECONDS:
        lines.append(
            f"note         {min(seconds):.1f} s of speech on one side: short "
            "recordings score lower"
        )
    say(
        arguments.json,
        {
            "score": score,
            "probability": probability,
            "prior": arguments.prior,
            "threshold": threshold,
            "same_speaker": same,
            "seconds": seconds,
            "files": sides,
            "model": model.source,
            "fingerprint": fingerprint(model),
            "bad": bad,
        },
        "\n".join(lines),
    )
    code = list_bad(bad, sum(map(len, sides)))
    check_threshold(threshold, model)
    return code or (YES if same else NO)


def embed(arguments):
    """Write embeddings to a file."""
    check_output(arguments.out, "--out")
    paths = find_recordings(arguments.files)
    model, _ = open_model(arguments.model)
    embedded, bad = embed_recordings(model, paths)
    if embedded:
        embeddings = torch.stack([one.embedding for one in embedded]).numpy()
        with (
            in_place_of(arguments.out) as temporary,
            open(temporary, "wb") as stream,
        ):
            np.savez(
                stream,
                files=np.array([one.path for one in embedded], dtype=str),
                embeddings=embeddings,
                seconds=np.array(
                    [one.seconds for one in embedded], dtype=np.float32
                ),
                model=np.array(model.source),
                fingerprint=np.array(fingerprint(model)),
            )
        say(
            arguments.json,
            {
                "out": arguments.out,
                "files": [one.path for one in embedded],
                "dimension": embeddings.shape[1],
                "model": model.source,
                "fingerprint": fingerprint(model),
                "bad": bad,
            },
            f"{len(embedded)} embedding{'s' * (len(embedded) > 1)} of "
            f"{embeddings.shape[1]} numbers in {arguments.out}",
        )
    return list_bad(bad, len(paths))
