"""Writes the contribution to SpeechBrain as patches, and tries them.

> python -m upstream.contribute patch SPEECHBRAIN
> python -m upstream.contribute check SPEECHBRAIN

SPEECHBRAIN is the folder of a git checkout; it is never changed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from upstream import check, checkout, library, recipe

# In the order in which they are applied; each is complete without the others.
PATCHES = (
    ("0001-imlkd-recipe.patch", recipe.slim_recipe),
    ("0002-exact-error-rates.patch", library.exact_error_rates),
    ("0003-meta-file-last.patch", library.meta_file_last),
)
MISSING = (
    "SPEECHBRAIN: give the folder of a SpeechBrain checkout, as in `make "
    "upstream-{} SPEECHBRAIN=../speechbrain`; `git clone "
    "https://github.com/speechbrain/speechbrain ../speechbrain` gets one."
)


def write_patches(source, out, revision):
    """Write all patches for a checkout; return their paths."""
    written = []
    with tempfile.TemporaryDirectory() as folder:
        copy = checkout.copy_of(source, Path(folder, "copy"), revision)
        base = checkout.git(copy, "rev-parse", "HEAD").strip()
        for name, edit in PATCHES:
            # Each on the same commit: they are merged in any order.
            checkout.git(copy, "checkout", "--quiet", "--detach", base)
            checkout.commit(copy, edit(copy))
            written.append(checkout.write_patch(copy, Path(out, name)))
    return written


def main(argv):
    """Parse the command line and do what it asks for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("patch", "check"))
    parser.add_argument("speechbrain", nargs="?", default="")
    parser.add_argument("--out", default="upstream", help="for the patches")
    parser.add_argument("--revision", default="HEAD")
    arguments = parser.parse_args(argv)
    if not arguments.speechbrain:
        print(MISSING.format(arguments.action), file=sys.stderr)
        return 2
    try:
        patches = write_patches(
            arguments.speechbrain, arguments.out, arguments.revision
        )
        for path in patches:
            print(path)
        found = recipe.files()
        print(recipe.counts_table(found))
        if not recipe.within_limits(found):
            print("The recipe is larger than promised.", file=sys.stderr)
            return 1
        if arguments.action == "patch":
            print("Apply them in a checkout with `git am`.")
            return 0
        return check.run(arguments.speechbrain, arguments.revision, patches)
    except checkout.CheckoutError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
