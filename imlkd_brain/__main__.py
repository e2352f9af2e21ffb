"""The command for people: ``python -m imlkd_brain``, also called ``imlkd``.

Authors: IML-KD contributors
"""

from imlkd_brain.commands.parser import main

if __name__ == "__main__":
    raise SystemExit(main())
