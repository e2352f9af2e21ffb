"""The command line of ``imlkd``: its verbs, their options and their help.

A verb's module is imported when the verb is called, so that the help takes no
time. Every verb is a function of the parsed arguments that returns the exit
code.

Authors: IML-KD contributors
"""

import argparse
import importlib
import os
import sys

from imlkd_brain import __version__
from imlkd_brain.commands.exit_codes import CODES
from imlkd_brain.commands.quick_start import import_speechbrain
from imlkd_brain.errors import UserError, one_sentence_errors

GRAPHS = ("features", "waveform")
CORPORA = ("minivox", "speechocean762")
ABOUT = """\
Tell speakers apart by their voices.

  imlkd verify a.wav b.wav                  one speaker, or two?
  imlkd enrol anna anna/*.wav --gallery team.npz
  imlkd identify who.wav --gallery team.npz
  imlkd embed recordings/ --out voices.npz
  imlkd info                                the model: size, cost, error rate
  imlkd export --out deploy --graphs waveform
  imlkd corpus minivox --data_folder DIR    recordings to try it on

Recordings may have any sampling rate, channels and format that libsndfile
reads (WAV, FLAC, OGG, MP3, ...). `imlkd VERB --help` explains a verb."""
FILES = "recordings, folders of recordings, or patterns such as '*.wav'"


def main(argv=None):
    """Parse the command line, call the verb, and return the exit code.

    Arguments
    ---------
    argv : list of str, optional
        Without the program's name; those of the process if not given.

    Returns
    -------
    int
        One of :mod:`imlkd_brain.commands.exit_codes`.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        # A file's name may hold what the terminal cannot show.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with one_sentence_errors():
        if argv[:1] == ["corpus"] and argv[1:2] and argv[1] in CORPORA:
            # The builders have parsers of their own.
            return _function("corpora:build")(argv[1], argv[2:])
        arguments = make_parser().parse_args(argv)
        try:
            code = _function(arguments.function)(arguments)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            # `imlkd ... | head`: nobody reads on. What Python flushes when it
            # ends must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except OSError as error:
            if error.filename is None:
                raise
            raise UserError(
                f"{error.filename}: cannot be read or written "
                f"({error.strerror}); check the path and its permissions."
            ) from error


def _function(place):
    """The function `module:name` of this package."""
    module, _, name = place.partition(":")
    if module != "corpora":
        import_speechbrain()
    module = importlib.import_module(f"imlkd_brain.commands.{module}")
    return getattr(module, name)


def make_parser():
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="imlkd",
        description=ABOUT,
        epilog=f"{CODES}\ndocs/command.md has more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"imlkd {__version__}"
    )
    verbs = parser.add_subparsers(
        title="verbs", metavar="VERB", required=True, dest="verb"
    )
    _add_verify(verbs)
    _add_embed(verbs)
    _add_enrol(verbs)
    _add_identify(verbs)
    _add_info(verbs)
    _add_export(verbs)
    _add_corpus(verbs)
    return parser


def _add_verb(verbs, name, function, short, about, with_model=True):
    """Add a verb with the options that all have."""
    verb = verbs.add_parser(
        name,
        help=short,
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(function=function)
    if with_model:
        verb.add_argument(
            "--model",
            metavar="FOLDER|NAME",
            help="a training's output folder, an exported model's folder, or "
            "the name of a shipped or public model; the shipped one if not "
            "given",
        )
    verb.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object, for programs",
    )
    return verb


def _add_verify(verbs):
    verb = _add_verb(
        verbs,
        "verify",
        "comparing:verify",
        "do two recordings have one speaker?",
        """\
Compare the voices of two recordings.

Prints the score (the cosine of two embeddings), the probability that both are
of one speaker, and the decision: one speaker where the score is above the
threshold. The threshold is that of the model's decision.json, measured on dev
trials at the equal error rate, where as many pairs of one speaker are refused
as pairs of two are accepted. For a door lock give a higher one.

Exit code 0: one speaker; 1: two speakers; 2: no decision.""",
    )
    for side in "AB":
        verb.add_argument(
            side.lower(),
            metavar=side,
            help="a recording; a folder or pattern stands for all of its "
            "recordings, of one speaker",
        )
    _add_threshold(verb)
    verb.add_argument(
        "--prior",
        type=_probability,
        default=0.5,
        metavar="P",
        help="share of pairs of one speaker that you expect; moves the "
        "probability, not the decision (default 0.5)",
    )


def _add_threshold(verb):
    verb.add_argument(
        "--threshold",
        type=_score,
        metavar="SCORE",
        help="decide at this score instead of the model's threshold",
    )


def _add_embed(verbs):
    verb = _add_verb(
        verbs,
        "embed",
        "comparing:embed",
        "write the embeddings of recordings to a file",
        """\
Write the embeddings of recordings to an .npz file.

It has the arrays `files` (N), `embeddings` (N, D), `seconds` (N), `model` and
`fingerprint`; numpy.load reads it without pickle. The cosine of two embeddings
is the score of `imlkd verify`.""",
    )
    verb.add_argument("files", nargs="+", metavar="FILES", help=FILES)
    verb.add_argument(
        "--out", required=True, metavar="X.npz", help="where they go"
    )


def _add_enrol(verbs):
    verb = _add_verb(
        verbs,
        "enrol",
        "galleries:enrol",
        "add a speaker to a gallery",
        """\
Add a speaker's recordings to a gallery.

The gallery is made if it is not there. A name that is enrolled already gets
the new recordings beside its old ones.""",
    )
    verb.add_argument("name", metavar="NAME", help="what to call the speaker")
    verb.add_argument("files", nargs="+", metavar="FILES", help=FILES)
    _add_gallery(verb)
    verb.add_argument(
        "--replace",
        action="store_true",
        help="forget what was enrolled under this name before",
    )


def _add_identify(verbs):
    verb = _add_verb(
        verbs,
        "identify",
        "galleries:identify",
        "who of a gallery speaks?",
        """\
Name the speaker of a recording, out of a gallery.

Prints the closest speakers with their scores. Where none is above the
threshold the speaker is unknown. The larger the gallery, the more often an
unknown speaker is close to someone: raise the threshold for large ones.

Exit code 0: known; 1: unknown (for several recordings: one of them is).""",
    )
    verb.add_argument("files", nargs="+", metavar="FILE", help=FILES)
    _add_gallery(verb)
    _add_threshold(verb)
    verb.add_argument(
        "--top",
        type=_count,
        default=3,
        metavar="N",
        help="speakers to print (default 3)",
    )


def _add_gallery(verb):
    verb.add_argument(
        "--gallery", required=True, metavar="G.npz", help="the gallery's file"
    )


def _add_info(verbs):
    verb = _add_verb(
        verbs,
        "info",
        "describing:info",
        "what a model is and costs, or who is in a gallery",
        """\
Describe a model: parameters, multiply-accumulates for 3 s of speech, size on
disk, front end, training data and error rate. Of a gallery (.npz): its speakers.""",
        with_model=False,
    )
    verb.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a folder or name, or a gallery; the shipped model if not given",
    )
    verb.add_argument(
        "--trust",
        action="store_true",
        help="let this model's hyperparams.yaml run the code that it names, "
        "now and later; once for a folder, and only if you trust its maker",
    )


def _add_export(verbs):
    verb = _add_verb(
        verbs,
        "export",
        "exporting:export",
        "write a model's folder to deploy",
        """\
Write a folder that SpeechBrain's classes load, with a model card, and ONNX
graphs that were checked against PyTorch if asked (needs the extra onnx).

export.py of the recipe also measures the graphs' error rates and fills in the
card.""",
    )
    verb.add_argument(
        "--out", required=True, metavar="FOLDER", help="where it goes"
    )
    verb.add_argument(
        "--graphs",
        nargs="+",
        choices=GRAPHS,
        default=(),
        help="what an ONNX graph reads; none if not given",
    )
    verb.add_argument(
        "--int8",
        action="store_true",
        help="each graph with weights of 8 bits as well",
    )
    verb.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the random lengths that graphs are checked on (default 0)",
    )


def _add_corpus(verbs):
    verb = verbs.add_parser(
        "corpus",
        help="build a corpus of recordings",
        description="Build a corpus. `imlkd corpus NAME --help` has the "
        "options of each.",
    )
    verb.add_argument("corpus", choices=CORPORA, help="which")


def _score(text):
    """A cosine."""
    value = float(text)
    if not -1 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between -1 and 1")
    return value


def _probability(text):
    """A probability that is neither 0 nor 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _count(text):
    """A whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value
