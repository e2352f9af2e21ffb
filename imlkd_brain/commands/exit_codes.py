"""Exit codes of ``imlkd``, for scripts.

0 and 1 answer the question, as in grep and diff, so that ``if imlkd verify a
b`` reads well. Errors have codes of their own: a script must never take a broken
file for another speaker. 2 is also what argparse exits with.

Authors: IML-KD contributors
"""

YES = 0
NO = 1
ERROR = 2
SOME_BAD = 3

CODES = """\
exit codes:
  0    done; one speaker; the speaker is known
  1    two speakers; the speaker is unknown
  2    an error; nothing was decided
  3    done, but for the recordings that are listed as bad
  28   the disk is full
  130  interrupted"""
