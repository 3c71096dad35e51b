"""The errors of the project, one tree, one form.

    TextDifuseError
    +-- InputError (also a ValueError)    something handed in is not what it must be
    |   +-- ImageError                    an image's shape, data type, range or content
    |   +-- FileError                     a file or folder: missing, truncated, of another kind
    |   +-- EncodingError                 the encoding or the bytes of an image message
    |   +-- CalibrationError              a camera's calibration: missing, or not for these images
    |   +-- BagError                      a recording
    +-- ConfigError (also a ValueError)   a parameter: out of range, of another type, misspelt
    +-- CheckpointError                   weights: another kind, another version, damaged
    +-- DeviceError                       a compute device that is absent or out of memory

Every message has the form: *what* must be *expected*, got *actual*; *remedy*.
"""

from __future__ import annotations


class TextDifuseError(Exception):
    """Root of every error that the project raises on purpose.

    :param what: the thing that is wrong, as its user knows it (a file, a parameter, an argument)
    :param expected: what it must be, with the unit where there is one
    :param actual: what was found
    :param remedy: what to do about it; may be empty
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
    """Something handed in is not what it must be."""


class ImageError(InputError):
    """An image has another shape, data type, range or content than it must have."""


class FileError(InputError):
    """A file or folder is missing, truncated, or of another kind."""


class EncodingError(InputError):
    """The encoding or the bytes of an image message are not what they must be."""


class CalibrationError(InputError):
    """A camera's calibration is missing, is of a kind that is not handled, or is not for these images."""


class BagError(InputError):
    """A recording is missing, damaged, or lacks a topic."""


class ConfigError(TextDifuseError, ValueError):
    """A parameter is out of range, of another type, or misspelt.

    ``what`` is the parameter's name.
    """


class CheckpointError(TextDifuseError):
    """Weights are missing, damaged, of another kind, or of another format version."""


class DeviceError(TextDifuseError):
    """A compute device is absent or cannot do what was asked."""
