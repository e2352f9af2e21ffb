"""``imlkd corpus``.

Authors: IML-KD contributors
"""

from imlkd_brain.corpora import minivox, speechocean762

BUILDERS = {"minivox": minivox, "speechocean762": speechocean762}


def build(name, arguments):
    """Build a corpus with its own options.

    Arguments
    ---------
    name : str
        One of ``BUILDERS``.
    arguments : list of str
        Its command line.

    Returns
    -------
    int
        The exit code.
    """
    BUILDERS[name].main(arguments, prog=f"imlkd corpus {name}")
    return 0
