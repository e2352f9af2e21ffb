"""The old name of ``python -m imlkd_brain.corpora.minivox``, which still works."""

from imlkd_brain.corpora.minivox import main
from imlkd_brain.errors import one_sentence_errors

if __name__ == "__main__":
    with one_sentence_errors():
        main()
