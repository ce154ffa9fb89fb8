"""The one gate between errors and the shell: a line on standard error and an exit code."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_CORRUPT = 4
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141


class NotFound(Exception):
    """A key, or a checkpoint, that a command was asked for is not in the store."""


class ReaderGone(Exception):
    """Nobody reads standard output any more."""


class Commands(click.Group):
    """A group whose commands never end in a traceback.

    `CESIUM_TRACEBACK=1` shows the traceback all the same, for those who look for a bug.
    """

    def main(self, args: Sequence[str] | None = None, *others: Any, **options: Any) -> Any:
        options["standalone_mode"] = False
        try:
            with warnings.catch_warnings():
                warnings.showwarning = show_warning
                code = super().main(args, *others, **options)
            sys.stdout.flush()
        except BaseException as error:
            if os.environ.get("CESIUM_TRACEBACK") == "1" and isinstance(error, Exception):
                raise
            code = report(error)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click has an answer of its own to these, with another code
            raise ReaderGone from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order in which a newcomer meets them


def report(error: BaseException) -> int:
    """Says what went wrong, in one line, and returns the exit code."""
    if isinstance(error, SystemExit):
        raise error
    if isinstance(error, (ReaderGone, BrokenPipeError)):
        # `cesium range ... | head`: let the shutdown flush into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        say("interrupted")
        return EXIT_INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return EXIT_USAGE
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "cesium"
        say(f"{error.format_message()} (see '{path} --help')")
        return EXIT_USAGE
    if isinstance(error, click.ClickException):
        say(error.format_message())
        return error.exit_code
    if isinstance(error, NotFound):
        say(str(error))
        return EXIT_NOT_FOUND
    say(message_of(error))
    return EXIT_ERROR


def message_of(error: BaseException) -> str:
    import cesium

    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename is not None else ""
        return f"{error.strerror}{where}"
    if isinstance(error, (cesium.Error, OSError, ValueError)):
        return str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"internal error: {type(error).__name__}: {error}"


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """In place of warnings.showwarning: no line of code, for nobody wrote one."""
    say(f"warning: {message}")


def say(message: str) -> None:
    line = " ".join(message.split())
    try:
        click.echo(f"cesium: {line}", err=True)
    except OSError:
        pass  # nobody listens any more; the exit code still tells
