"""Exception hierarchy of the project.

    TextDifuseError
    +-- InputError (also a ValueError)    invalid input
    |   +-- ImageError                    shape, data type, range or content of an image
    |   +-- FileError                     file or folder missing, truncated or of the wrong kind
    |   +-- EncodingError                 encoding or bytes of an image message
    |   +-- CalibrationError              camera calibration missing, unsupported or for other images
    |   +-- BagError                      recording missing, damaged or without a required topic
    +-- ConfigError (also a ValueError)   parameter out of range, of the wrong type or unknown
    +-- CheckpointError                   weights missing, damaged, of the wrong kind or version
    +-- DeviceError                       compute device missing or out of memory

Every message is one line of the form: *what* must be *expected*, got *actual*; *remedy*. Values from outside are
shortened.
"""

from __future__ import annotations

import reprlib

MAX_PART = 1000
"""Longest part of an error message, in characters; longer ones are shortened."""

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 120, 120
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 16


def shorten(text: str, limit: int = MAX_PART) -> str:
    """Fit a text of any length into one line, for messages and logs.

    :param text: any text
    :param limit: longest result, at least 40 [characters]
    :returns: the text with its line breaks replaced by blanks; where it is too long, its beginning and its length
    """
    if len(text) > limit:
        text = f"{text[: limit - 32]}... ({len(text)} characters)"
    return " ".join(text.splitlines()) if text.splitlines()[1:] else text


def quote(value: object) -> str:
    """Represent a value of any size in one line, in bounded time: ``repr`` with the inner parts left out.

    :param value: of a parameter, from a file or a message
    """
    try:
        return shorten(_SHORT.repr(value), 240)
    except ValueError:  # Python does not write integers of more than 4300 digits
        return "a value that cannot be written out"


class TextDifuseError(Exception):
    """Base class of all errors that the project raises.

    :param what: what is wrong, in the user's terms (a file, a parameter, an argument)
    :param expected: what it must be, with its unit
    :param actual: what it is
    :param remedy: how to fix it; may be empty

    Each part is cut to :data:`MAX_PART` characters.
    """

    def __init__(self, what: str, expected: str, actual: object, remedy: str = "") -> None:
        self.what = shorten(what)
        self.expected = shorten(expected)
        self.actual = shorten(quote(actual) if isinstance(actual, (list, tuple, dict, int, float)) else str(actual))
        self.remedy = shorten(remedy)
        text = f"{self.what} must be {self.expected}, got {self.actual}"
        super().__init__(f"{text}; {self.remedy}" if remedy else text)

    def __reduce__(self) -> tuple[type[TextDifuseError], tuple[str, str, str, str]]:
        return type(self), (self.what, self.expected, self.actual, self.remedy)


class InputError(TextDifuseError, ValueError):
    """An input is invalid."""


class ImageError(InputError):
    """An image has the wrong shape, data type, range or content."""


class FileError(InputError):
    """A file or folder is missing, truncated, or of the wrong kind."""


class EncodingError(InputError):
    """An image message has an unsupported encoding or invalid data."""


class CalibrationError(InputError):
    """A camera calibration is missing, unsupported, or made for images of another size."""


class BagError(InputError):
    """A recording is missing, damaged, or lacks a required topic."""


class ConfigError(TextDifuseError, ValueError):
    """A parameter is out of range, of the wrong type, or unknown; ``what`` is its name."""


class CheckpointError(TextDifuseError):
    """A checkpoint is missing, damaged, of the wrong kind, or of another format version."""


class DeviceError(TextDifuseError):
    """A compute device is missing, out of memory, or lacks a required feature."""
