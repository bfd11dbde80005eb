"""Shows the progress of a fetch, with `rich` or as plain text."""

from __future__ import annotations

import sys

from ._fetch import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._p2pdi import Progress


class Display:
    """A progress bar in a terminal or a notebook; without `rich`, one line that is written again and again."""

    def __init__(self) -> None:
        self._rich: Any = None
        self._task: Any = None
        self._shown = ""

    def __enter__(self) -> Display:
        try:
            from importlib import import_module

            progress: Any = import_module("rich.progress")
            console: Any = import_module("rich.console")
        except ImportError:
            return self
        # What a program prints is on the other stream; a notebook shows both.
        talk = console.Console(stderr=True)
        self._rich = progress.Progress(
            progress.BarColumn(),
            progress.DownloadColumn(binary_units=True),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.description}"),
            console=talk,
        )
        self._rich.start()
        self._task = self._rich.add_task("", total=None)
        return self

    def show(self, progress: Progress) -> None:
        """Shows how far it is."""
        if self._rich is not None:
            what = progress.stalled_reason or ", ".join(source.peer for source in progress.sources[:3])
            self._rich.update(self._task, total=progress.total or None, completed=progress.done, description=what)
            return
        text = line(progress)
        if sys.stderr.isatty():
            sys.stderr.write("\r" + text.ljust(len(self._shown)))
        elif text != self._shown and (progress.ended or not self._shown):
            # A log gets the first and the last line.
            sys.stderr.write(text + "\n")
        sys.stderr.flush()
        self._shown = text

    def __exit__(self, *_: object) -> None:
        if self._rich is not None:
            self._rich.stop()
        elif sys.stderr.isatty():
            sys.stderr.write("\n")
