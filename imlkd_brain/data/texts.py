"""Reads a user's text files, whatever program wrote them.

Authors: IML-KD contributors
"""

import codecs

from imlkd_brain.errors import UserError
from imlkd_brain.files import check_regular

# The marks that editors put before a text, and the encodings they announce.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_lines(path, kind, form):
    r"""Read the lines of a text file.

    Arguments
    ---------
    path : str or pathlib.Path
        UTF-8 with or without a byte-order mark, or UTF-16 with one. Lines
        end as on Unix, Windows or old Macs.
    kind : str
        What the file is called in messages.
    form : str
        What its lines should be, for messages.

    Returns
    -------
    list of str
        The lines without their ends.

    Raises
    ------
    UserError
        If the file is missing, cannot be read or is no text.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as stream:
    ...     _ = stream.write(b"\xef\xbb\xbf1 a b\r\n0 a c\r\n")
    ...     stream.flush()
    ...     read_lines(stream.name, "trial list", "`1 enrol test`")
    ['1 a b', '0 a c']
    """
    try:
        check_regular(path)
        with open(path, "rb") as stream:
            content = stream.read()
        encoding = next(
            (name for mark, name in MARKS if content.startswith(mark)), "utf-8"
        )
        text = content.decode(encoding)
        if text and not any(letter.isascii() for letter in text):
            text = "\0"  # bytes that only happen to begin with a mark
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such {kind}; give a text file with {form}."
        ) from None
    except OSError as error:
        raise UserError(
            f"{path}: this {kind} cannot be read ({error.strerror}); expected a "
            f"text file with {form}."
        ) from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(
            f"{path}: this is no text in UTF-8; expected a text file with "
            f"{form}."
        )
    # Not splitlines(): a file's name may hold what Unicode calls a line end.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines
