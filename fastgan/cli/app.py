"""The tree of commands, and what becomes of the errors they raise."""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from fastgan import __version__
from fastgan.cli import config, presets, schedule
from fastgan.cli.bench import bench
from fastgan.cli.doctor import doctor
from fastgan.cli.sample import sample
from fastgan.cli.simulate import simulate
from fastgan.cli.train import train
from fastgan.errors import FastganError
from fastgan.train.log import fail, say

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

# Bad usage of the command line; the class has no public name that all versions of typer share.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]


class _InterruptedError(FastganError):
    """Ctrl-C in a command that has nothing to save."""

    exit_code = EXIT_INTERRUPTED


def build_app() -> typer.Typer:
    """All commands. Each is a function that imports what it needs when it is called."""
    app = _group("Train generative adversarial networks. To begin: fastgan train digits")
    app.callback()(_root)
    _add(app, train, name="train")
    _add(app, sample, name="sample")
    _add(app, presets.list_presets, name="presets")
    _add(app, doctor, name="doctor")
    _add(app, bench, name="bench")
    config_app = _group("Show, check and describe configurations.")
    config_app.callback()(_show_help)
    _add(config_app, config.show, name="show")
    _add(config_app, config.check, name="check")
    _add(config_app, config.schema, name="schema")
    app.add_typer(config_app, name="config")
    _add(app, simulate, name="simulate")
    schedule_app = _group("Show who does what in a run.")
    schedule_app.callback()(_show_help)
    _add(schedule_app, schedule.show, name="show")
    app.add_typer(schedule_app, name="schedule")
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command line, without the program's name, and return the exit code.

    Errors that the user can repair become one `error: ...` line each on stderr.
    """
    try:
        code = build_app()(args=list(arguments), prog_name="fastgan", standalone_mode=False)
    except FastganError as error:
        return _report(str(error), code=error.exit_code)
    except _USAGE_ERROR as error:
        return _report(_usage_text(error), code=EXIT_USAGE)
    return code if isinstance(code, int) else 0


def _add(app: typer.Typer, command: Callable[..., None], *, name: str) -> None:
    """Add a command in which Ctrl-C is an error with its own exit code, not an exit that typer words by version."""

    @functools.wraps(command)
    def interruptible(*values: Any, **options: Any) -> None:
        try:
            command(*values, **options)
        except KeyboardInterrupt:
            raise _InterruptedError("interrupted") from None

    app.command(name)(interruptible)


def _group(text: str) -> typer.Typer:
    return typer.Typer(
        help=text,
        invoke_without_command=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        say(f"fastgan {__version__}")
    else:
        _show_help(context)


def _show_help(context: typer.Context) -> None:
    """A group without a command explains itself."""
    if context.invoked_subcommand is None:
        say(context.get_help())


def _usage_text(error: Exception) -> str:
    """The parser's complaint on one line, with the help to look at."""
    message: str = error.format_message()  # type: ignore[attr-defined]
    context: typer.Context | None = getattr(error, "ctx", None)
    command = context.command_path if context else "fastgan"
    return f"{message.rstrip('.')} (see {command} --help)"


def _report(text: str, *, code: int) -> int:
    for line in text.splitlines():
        fail(line)
    return code
