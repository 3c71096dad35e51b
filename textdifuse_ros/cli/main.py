"""``textdifuse``: the verbs, their exit statuses and the form of errors.

A verb is a module of this folder with ``NAME``, ``HELP``, ``configure(parser)`` and ``run(arguments) -> int``. It
imports PyTorch and other large packages inside ``run``, so that ``--help`` is fast.

Exit status: 0 success; 1 partial success, with a message about the rest; 2 invalid usage, configuration or input,
nothing was done; 130 interrupted; 141 the output pipe was closed; 143 terminated (``bag``).
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from textdifuse_ros import __version__
from textdifuse_ros.cli.help import EXAMPLES, HelpAll, short_help
from textdifuse_ros.errors import TextDifuseError, shorten

# The modules of the verbs, in the order in which --help lists them.
VERBS = (
    "fuse", "locate", "info", "benchmark", "train", "drive", "calibrate", "demo", "endurance", "evaluate",
    "evaluate_localizer", "sync_doctor", "bag", "convert",
)  # fmt: skip


_GIVEN = "_flags_given"


class _StoreOnce(argparse._StoreAction):
    """Stores the value of a flag, and refuses a second one, of which argparse would take the last silently."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        given: set[str] = vars(namespace).setdefault(_GIVEN, set())
        if option_string and self.dest in given:
            raise argparse.ArgumentError(None, f"{option_string} must be given once, got it twice")
        given.add(self.dest)
        super().__call__(parser, namespace, values, option_string)


class Parser(argparse.ArgumentParser):
    """An argument parser that reports errors in one line, like the rest of the project; a flag may be given once.

    :param options: those of :class:`argparse.ArgumentParser`
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in (None, "store"):
            self.register("action", name, _StoreOnce)
        self.add_argument("--help-all", action=HelpAll, help="explain every option and exit")

    def format_help(self) -> str:
        """Format the help so that it fits one screen; ``--help-all`` prints all of it."""
        return short_help(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the known flags.

        :param args: arguments, by default those of the process
        :param namespace: extended; None for a new one
        :returns: the namespace and the other arguments
        """
        found, others = super().parse_known_args(args, namespace)
        if hasattr(found, _GIVEN):
            delattr(found, _GIVEN)
        return found, others

    def error(self, message: str) -> NoReturn:
        """Print the error on stderr and exit with status 2.

        :param message: the message of argparse
        """
        self.exit(2, f"textdifuse: {shorten(message, 400)}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """Create the parser of the command line; its namespace contains the verb's ``run``."""
    parser = Parser(prog="textdifuse", description="Fuse infrared and visible images by diffusion.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"textdifuse {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name in VERBS:
        module = importlib.import_module(f"textdifuse_ros.cli.{name}")
        verb = verbs.add_parser(module.NAME, help=module.HELP, description=module.HELP, allow_abbrev=False)
        verb.epilog = f"example: {EXAMPLES[module.NAME]}"
        module.configure(verb)
        verb.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    :param argv: the arguments without the name of the program; None for those of the process
    :returns: the exit status
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names that are not UTF-8 are printed with escapes.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        arguments = build_parser().parse_args(argv)
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except TextDifuseError as error:
        print(f"textdifuse: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("textdifuse: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Python flushes stdout again at exit, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if not error.filename:
            raise
        found = (error.strerror or str(error)).lower()
        print(
            f"textdifuse: {shorten(str(error.filename), 200)} must be a path that can be read or written, got {found}",
            file=sys.stderr,
        )
        return 2


if __name__ == "__main__":
    sys.exit(main())
