"""Parse the text of a user into phrases with strengths.

    prompt   = [lead] phrase { separator phrase } [tail]
    phrase   = [article] words [":" strength]
    separator = "," | ";" | "&" | "." and a blank | new line | "and"
    lead     = "Please highlight", "show", "find" and similar; "make ... stand out"
    tail     = "in the image", "please", "." | "!" | "?"

Case and repeated blanks are ignored. A point within a number or a word separates nothing. The marks of other scripts
for comma, semicolon, colon and full stop count as these. A strength is a number in [-1, 2] and defaults to 1. A text
without phrases is an empty prompt, which means plain fusion. A text has at most 4000 characters; the time to read it
grows with its length, and not faster.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from textdifuse_ros.checks import check_number
from textdifuse_ros.errors import ConfigError, quote

STRENGTH_LOW, STRENGTH_HIGH = -1.0, 2.0
MAX_PHRASES = 254  # label maps are uint8, and 255 is reserved for "ignore"
MAX_LENGTH = 4000
"""Longest text [characters]."""

Vocabulary = Mapping[str, Sequence[str]]
"""Classes of a localizer with their synonyms, in lower case. A synonym may belong to several classes."""

# Full-width, half-width and ideographic marks of Chinese and Japanese keyboards, and Arabic, Armenian, Ethiopic, Indic.
_MARKS = str.maketrans(
    {mark: ascii_mark for ascii_mark, marks in {
        ",": "\n\r\x85\u2028\u2029\uff0c\u3001\uff64\ufe50\ufe51\u060c\u055d\u1363\u3002\uff61\u06d4\u0964\u0965\u1362",
        ";": "\uff1b\ufe54\u061b\u1364",
        ":": "\uff1a\ufe55\ufe13\u2236",
        "!": "\uff01",
        "?": "\uff1f\u061f",
        "&": "\uff06",
        ".": "\uff0e\ufe52",
    }.items() for mark in marks}
)  # fmt: skip
_FULL_WIDTH_STOP = re.compile(r"[\uff0e\ufe52](?!\d)|(?<!\d)[\uff0e\ufe52]")  # the others are decimal points
_STOP = re.compile(r"\.(?=\s|$)")
_SEPARATOR = re.compile(r"\s?[,;&]\s?(?:and\b)?|\band\b")
_VERBS = (
    "highlight|emphasi[sz]e|enhance|accentuate|show|find|detect|locate|segment|mark|"
    "focus on|look for|pay attention to|make"
)
_LEAD = re.compile(
    # A colon belongs to the lead, as in "Highlight: person", unless a strength follows.
    rf"\s*(?:(?:please|kindly|can you|could you)[ ,]+)*(?:{_VERBS})(?: me| us)?\b(?:\s*:(?!\s*[-+.\d]))?\s*",
    re.IGNORECASE,
)
_TAILS = ("stand out", "in the picture", "in the image", "in the scene", "in the frame", "please")
_ARTICLE = re.compile(r"^(?:(?:the|an|a|all|any|every|each|some)\b\s*)+")
_IRREGULAR = {"people": "person", "men": "man", "children": "child"}


@dataclass(frozen=True)
class Phrase:
    """One phrase of a prompt.

    :ivar text: lower case, without article
    :ivar strength: in [-1, 2]; 1 emphasizes, 0 has no effect, negative de-emphasizes
    :ivar index: its number in the prompt, from 1, and its value in label maps
    """

    text: str
    strength: float
    index: int


@dataclass(frozen=True)
class Prompt:
    """A parsed text; false if it has no phrases.

    :ivar text: as it was written
    :ivar phrases: in the order of the text, indices 1, 2, ...
    """

    text: str = ""
    phrases: tuple[Phrase, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.phrases)

    @property
    def names(self) -> tuple[str, ...]:
        """The phrases without strengths; prompts of equal names locate the same objects."""
        return tuple(phrase.text for phrase in self.phrases)


def parse_prompt(text: str, name: str = "target_text") -> Prompt:
    """Parse a prompt.

    :param text: as the user wrote it
    :param name: of the parameter or flag, for errors
    :raises ConfigError: not a text, or too long; a strength outside [-1, 2] or without a phrase, a phrase with two
        strengths, or too many phrases
    """
    if not isinstance(text, str):
        raise ConfigError(name, "text", f"{quote(text)} ({type(text).__name__})")
    if len(text) > MAX_LENGTH:
        raise ConfigError(name, f"at most {MAX_LENGTH} characters", f"{len(text)}: {quote(text[:200])}")
    core = _without_lead(_without_tail(_with_plain_marks(text)))
    strengths: dict[str, float] = {}
    had_strength = False  # of the previous phrase
    for piece in _SEPARATOR.split(core.lower()):
        words, colon, number = piece.partition(":")
        words = bare_words(words)
        strength = _strength(number, piece, name) if colon else 1.0
        if not words:
            if colon:
                raise ConfigError(name, "a phrase before each strength, as in person:1.5", quote(piece.strip()))
            continue
        if had_strength and words.isdecimal():
            raise ConfigError(name, "words", quote(words), "use a decimal point in strengths, as in person:1.5")
        had_strength = bool(colon)
        if strengths.setdefault(words, strength) != strength:
            raise ConfigError(name, f"one strength for {quote(words)}", f"{strengths[words]:g} and {strength:g}")
    if len(strengths) > MAX_PHRASES:
        raise ConfigError(name, f"at most {MAX_PHRASES} phrases", len(strengths))
    phrases = tuple(Phrase(words, value, index) for index, (words, value) in enumerate(strengths.items(), 1))
    return Prompt(text, phrases)


def _with_plain_marks(text: str) -> str:
    """The text with single blanks, and with ASCII marks as separators."""
    plain = " ".join(_FULL_WIDTH_STOP.sub(",", text).translate(_MARKS).split())
    return _STOP.sub(",", plain)


def _without_tail(text: str) -> str:
    while True:
        text = text.rstrip(" ,.!?")
        ending = text[-max(map(len, _TAILS)) :].lower()
        tail = next((tail for tail in _TAILS if ending.endswith(tail)), "")
        if not tail or re.match(r"\w", text[: -len(tail)][-1:]):  # the end of another word, as in "displease"
            return text
        text = text[: -len(tail)]


def _without_lead(text: str) -> str:
    lead = _LEAD.match(text)
    return text[lead.end() :] if lead else text


def bare_words(words: str) -> str:
    """Remove article, surrounding punctuation and repeated blanks.

    :param words: of a phrase, lower case
    """
    return " ".join(_ARTICLE.sub("", words.strip(" .!?\"'")).split())


def _strength(number: str, piece: str, name: str) -> float:
    try:
        value = float(number)
    except ValueError:
        remedy = "write person:1.5, car:0.5"
        raise ConfigError(name, "a number after each colon", quote(piece.strip()), remedy) from None
    check_number(f"the strength in {quote(piece.strip())} of {name}", value, STRENGTH_LOW, STRENGTH_HIGH)
    return value


def resolve(prompt: Prompt, vocabulary: Vocabulary, name: str = "target_text") -> tuple[tuple[str, ...], ...]:
    """Map each phrase of a prompt to classes of a closed vocabulary; plurals and synonyms are understood.

    If two phrases mean the same class, it belongs to the narrower one: in "vehicle, car:2" cars belong to the second.

    :param prompt: the phrases
    :param vocabulary: the known classes
    :param name: of the parameter or flag, for errors
    :returns: class names of each phrase, in the prompt's order; a broader phrase may be left with none
    :raises ConfigError: an unknown phrase (the message lists the known classes), or two phrases for the same classes
    """
    known: dict[str, list[str]] = {}
    for item, others in vocabulary.items():
        for word in (item, *others):
            classes = known.setdefault(word, [])
            if item not in classes:
                classes.append(item)
    rows = [_lookup(phrase.text, known, vocabulary, name) for phrase in prompt.phrases]
    owner: dict[str, int] = {}
    for index, classes in enumerate(rows):
        for item in classes:
            other = owner.setdefault(item, index)
            if other != index and set(rows[other]) == set(classes):
                both = f"{quote(prompt.phrases[other].text)} and {quote(prompt.phrases[index].text)}"
                raise ConfigError(name, "one phrase for each class", f"{both}, which both mean {', '.join(classes)}")
            if len(classes) < len(rows[other]):
                owner[item] = index
    return tuple(tuple(item for item in classes if owner[item] == index) for index, classes in enumerate(rows))


def _lookup(phrase: str, known: Mapping[str, list[str]], vocabulary: Vocabulary, name: str) -> list[str]:
    for form in singulars(phrase):
        if form in known:
            return known[form]
    near = difflib.get_close_matches(singulars(phrase)[-1], known, n=1, cutoff=0.75)
    remedy = f"did you mean {near[0]}?" if near else "other localizers accept any words"
    raise ConfigError(name, f"classes that the localizer knows ({', '.join(vocabulary)})", quote(phrase), remedy)


def singulars(phrase: str) -> list[str]:
    """Return the phrase itself and its possible singular forms.

    :param phrase: lower case
    """
    *head, last = phrase.split()
    forms = [_IRREGULAR[last]] if last in _IRREGULAR else []
    for ending, replacement in (("men", "man"), ("ies", "y"), ("es", ""), ("s", "")):
        if last.endswith(ending) and len(last) > len(ending) + 1:
            forms.append(last.removesuffix(ending) + replacement)
    return [" ".join((*head, word)) for word in (last, *forms)]
