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

Every message has the form: *what* must be *expected*, got *actual*; *remedy*.
"""

from __future__ import annotations


class TextDifuseError(Exception):
    """Base class of all errors that the project raises.

    :param what: what is wrong, in the user's terms (a file, a parameter, an argument)
    :param expected: what it must be, with its unit
    :param actual: what it is
    :param remedy: how to fix it; may be empty
    """

    def __init__(self, what: str, expected: str, actual: object, remedy: str = "") -> None:
        self.what = what
        self.expected = expected
        self.actual = str(actual)
        self.remedy = remedy
        text = f"{what} must be {expected}, got {self.actual}"
        super().__init__(f"{text}; {remedy}" if remedy else text)

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
