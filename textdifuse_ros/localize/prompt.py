"""Parse the text of a user into phrases with strengths.

    prompt   = [lead] phrase { separator phrase } [tail]
    phrase   = [article] words [":" strength]
    separator = "," | ";" | "&" | new line | "and"
    lead     = "Please highlight", "show", "find" and similar; "make ... stand out"
    tail     = "in the image", "please", "." | "!" | "?"

Case and repeated blanks are ignored. A strength is a number in [-1, 2] and defaults to 1. A text without phrases is an
empty prompt, which means plain fusion.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from textdifuse_ros.checks import check_number
from textdifuse_ros.errors import ConfigError

STRENGTH_LOW, STRENGTH_HIGH = -1.0, 2.0
MAX_PHRASES = 254  # label maps are uint8, and 255 is reserved for "ignore"

Vocabulary = Mapping[str, Sequence[str]]
"""Classes of a localizer with their synonyms, in lower case. A synonym may belong to several classes."""

_SEPARATOR = re.compile(r"\s*[,;&\n]\s*(?:and\b)?|\band\b")
_VERBS = (
    "highlight|emphasi[sz]e|enhance|accentuate|show|find|detect|locate|segment|mark|"
    "focus on|look for|pay attention to|make"
)
_LEAD = re.compile(
    # A colon belongs to the lead, as in "Highlight: person", unless a strength follows.
    rf"^\s*(?:(?:please|kindly|can you|could you)[ ,]+)*(?:{_VERBS})(?: me| us)?\b(?:\s*:(?!\s*[-+.\d]))?\s*",
    re.IGNORECASE,
)
_TAIL = re.compile(r"[\s.!?]*(?:\b(?:stand out|in the (?:picture|image|scene|frame)|please)[\s.!?,]*)*$", re.IGNORECASE)
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
    :raises ConfigError: not a text, a strength outside [-1, 2] or without a phrase, a phrase with two strengths, or
        too many phrases
    """
    if not isinstance(text, str):
        raise ConfigError(name, "text", f"{text!r} ({type(text).__name__})")
    core = _LEAD.sub("", _TAIL.sub("", " ".join(text.replace("\n", ",").split())), count=1)
    strengths: dict[str, float] = {}
    had_strength = False  # of the previous phrase
    for piece in _SEPARATOR.split(core.lower()):
        words, colon, number = piece.partition(":")
        words = bare_words(words)
        strength = _strength(number, piece, name) if colon else 1.0
        if not words:
            if colon:
                raise ConfigError(name, "a phrase before each strength, as in person:1.5", repr(piece.strip()))
            continue
        if had_strength and words.isdecimal():
            raise ConfigError(name, "words", repr(words), "use a decimal point in strengths, as in person:1.5")
        had_strength = bool(colon)
        if strengths.setdefault(words, strength) != strength:
            raise ConfigError(name, f"one strength for {words!r}", f"{strengths[words]:g} and {strength:g}")
    if len(strengths) > MAX_PHRASES:
        raise ConfigError(name, f"at most {MAX_PHRASES} phrases", len(strengths))
    phrases = tuple(Phrase(words, value, index) for index, (words, value) in enumerate(strengths.items(), 1))
    return Prompt(text, phrases)


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
        raise ConfigError(name, "a number after each colon", repr(piece.strip()), remedy) from None
    check_number(f"the strength in {piece.strip()!r} of {name}", value, STRENGTH_LOW, STRENGTH_HIGH)
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
                both = f"{prompt.phrases[other].text!r} and {prompt.phrases[index].text!r}"
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
    raise ConfigError(name, f"classes that the localizer knows ({', '.join(vocabulary)})", repr(phrase), remedy)


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
