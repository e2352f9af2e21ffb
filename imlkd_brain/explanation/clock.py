"""Measures how long the stages of a script take.

Authors: IML-KD contributors
"""

import time


class Clock:
    """Add the time since the last lap to a stage.

    Elapsed and processor time differ if other programs use the same cores.

    Example
    -------
    >>> clock = Clock()
    >>> clock.lap("maps")
    >>> list(clock.seconds)
    ['maps']
    """

    def __init__(self):
        self.seconds = {}  # stage: [elapsed, processor]
        self.last = self.now()

    def now(self):
        """Elapsed and processor seconds of this process."""
        return time.perf_counter(), time.process_time()

    def lap(self, stage):
        """End a stage."""
        now = self.now()
        spent = self.seconds.setdefault(stage, [0.0, 0.0])
        for i in range(2):
            spent[i] = round(spent[i] + now[i] - self.last[i], 2)
        self.last = now

    def table(self):
        """Format the stages, a line each."""
        lines = [f"{'stage':28s}{'seconds':>9s}{'processor':>11s}"]
        for stage, (elapsed, processor) in self.seconds.items():
            lines.append(f"{stage:28s}{elapsed:9.1f}{processor:11.1f}")
        return "\n".join(lines)
