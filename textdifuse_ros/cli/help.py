"""``--help`` that fits one screen, with an example; ``--help-all`` explains every option."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from typing import Any

SCREEN = 50
"""Lines of a screen; longer help is shortened [lines]."""
EXAMPLES = {
    "fuse": "textdifuse fuse vis/ ir/ -o fused/ --text 'person, car:0.5'",
    "locate": "textdifuse locate vis/ ir/ --text 'person, car' -o found/",
    "info": "textdifuse info --model drive --size 1280x720",
    "benchmark": "textdifuse benchmark --size 640x512 --device cpu",
    "train": "textdifuse train joint --config run.yaml --dry-run",
    "drive": "textdifuse drive -o drive/ --frames 100",
    "calibrate": "textdifuse calibrate recording -o registration.yaml --sheet overlay.png",
    "demo": "textdifuse demo -o build/demo --text person",
    "endurance": "textdifuse endurance --minutes 10",
    "evaluate": "textdifuse evaluate --visible vis/ --infrared ir/ --model default --report report/",
    "evaluate-localizer": "textdifuse evaluate-localizer --split val --json figures.json",
    "sync-doctor": "textdifuse sync-doctor recording",
    "bag": "textdifuse bag recording fused_recording --params-file registration.yaml",
    "convert": "textdifuse convert stage1.pth stage2.pth fcm.pt -o reference.safetensors",
}
"""A command for each verb."""


class HelpAll(argparse.Action):
    """Prints the complete help.

    :param option_strings: the flags
    :param dest: of the namespace, unused
    :param options: ``help``
    """

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=options.get("help"))

    def __call__(self, parser: argparse.ArgumentParser, *unused: Any) -> None:
        print(argparse.ArgumentParser.format_help(parser), end="")
        parser.exit()


def short_help(parser: argparse.ArgumentParser) -> str:
    """Format the help of a parser so that it fits one screen.

    Parameters, which also have YAML and ROS forms, are only named, and each option is told in one sentence, with its
    default.

    :param parser: the parser of a verb
    :returns: the complete help where that fits
    """
    full = argparse.ArgumentParser.format_help(parser)
    if full.count("\n") <= SCREEN:
        return full
    kept = {action: action.help for action in parser._actions}
    usage, epilog, names = parser.usage, parser.epilog, []
    try:
        for action, text in kept.items():
            if _is_parameter(action):
                names += [name for name in action.option_strings if name.startswith("--")][:1]
                action.help = argparse.SUPPRESS
            elif text and text != argparse.SUPPRESS:
                action.help = _one_sentence(text)
        inputs = " ".join(str(action.metavar or action.dest) for action in parser._actions if not action.option_strings)
        parser.usage, parser.epilog = f"%(prog)s {inputs} [options]".replace("  ", " "), None
        text = argparse.ArgumentParser.format_help(parser)
    finally:
        parser.usage, parser.epilog = usage, epilog
        for action, kept_text in kept.items():
            action.help = kept_text
    named = "parameters (--help-all explains them): " + " ".join(names)
    width = shutil.get_terminal_size().columns - 2
    more = textwrap.wrap(named, width, break_on_hyphens=False) if names else []
    return text + "\n".join(["", *more, *([epilog] if epilog else []), ""])


def _is_parameter(action: argparse.Action) -> bool:
    special = (argparse._HelpAction, argparse._VersionAction, HelpAll)
    return bool(action.option_strings) and action.default is argparse.SUPPRESS and not isinstance(action, special)


def _one_sentence(text: str) -> str:
    """The first sentence and the default."""
    sentences = re.split(r"(?<=\.) (?=[A-Z])", " ".join(text.split()))
    default = [one for one in sentences[1:] if one.startswith("Default")]
    return " ".join([sentences[0], *default[:1]])
