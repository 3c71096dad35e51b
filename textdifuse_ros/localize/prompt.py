"""The text a user writes, as phrases with strengths.

    prompt   = [lead] phrase { separator phrase } [tail]
    phrase   = [article] words [":" strength]
    separator = "," | ";" | "&" | new line | "and"
    lead     = "Please highlight", "show", "find" and their like; "make ... stand out"
    tail     = "in the image", "please", "." | "!" | "?"

Case and repeated blanks do not matter. A strength is a number in [-1, 2]; without one it is 1. An empty text, or one of
blanks and separators only, asks for nothing: the plain fusion.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from textdifuse_ros.checks import check_number
from textdifuse_ros.errors import ConfigError

STRENGTH_LOW, STRENGTH_HIGH = -1.0, 2.0
MOST_PHRASES = 254  # label maps are uint8, and 255 stays free for "ignore"

Vocabulary = Mapping[str, Sequence[str]]
"""Synonyms of each class of a localizer; one may belong to several (``vehicle`` to car, truck and bus). Lower case."""

_SEPARATOR = re.compile(r"\s*[,;&\n]\s*(?:and\b)?|\band\b")
_VERBS = (
    "highlight|emphasi[sz]e|enhance|accentuate|show|find|detect|locate|segment|mark|"
    "focus on|look for|pay attention to|make"
)
_LEAD = re.compile(
    # A colon is the request's, as in "Highlight: person", unless a strength follows.
    rf"^\s*(?:(?:please|kindly|can you|could you)[ ,]+)*(?:{_VERBS})(?: me| us)?\b(?:\s*:(?!\s*[-+.\d]))?\s*",
    re.IGNORECASE,
)
_TAIL = re.compile(r"[\s.!?]*(?:\b(?:stand out|in the (?:picture|image|scene|frame)|please)[\s.!?,]*)*$", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:(?:the|an|a|all|any|every|each|some)\b\s*)+")
_IRREGULAR = {"people": "person", "men": "man", "children": "child"}


@dataclass(frozen=True)
class Phrase:
    """One thing to look for.

    :ivar text: lower case, without article
    :ivar strength: in [-1, 2]; 1 emphasizes, 0 leaves alone, negative plays down
    :ivar index: its place in the prompt from 1 on, and its value in label maps
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

    :param name: what the user knows the text as, for errors
    :raises ConfigError: no text, a strength that is no number in [-1, 2], a strength of nothing, one phrase with two
        strengths, or too many phrases
    """
    if not isinstance(text, str):
        raise ConfigError(name, "text", f"{text!r} ({type(text).__name__})")
    wanted = _LEAD.sub("", _TAIL.sub("", " ".join(text.replace("\n", ",").split())), count=1)
    strengths: dict[str, float] = {}
    had_strength = False  # of the previous phrase
    for piece in _SEPARATOR.split(wanted.lower()):
        words, colon, number = piece.partition(":")
        words = bare_words(words)
        strength = _strength(number, piece, name) if colon else 1.0
        if not words:
            if colon:
                raise ConfigError(name, "a phrase before each strength, as in person:1.5", repr(piece.strip()))
            continue
        if had_strength and words.isdecimal():
            raise ConfigError(name, "words", repr(words), "strengths have a point, as in person:1.5")
        had_strength = bool(colon)
        if strengths.setdefault(words, strength) != strength:
            raise ConfigError(name, f"one strength for {words!r}", f"{strengths[words]:g} and {strength:g}")
    if len(strengths) > MOST_PHRASES:
        raise ConfigError(name, f"at most {MOST_PHRASES} phrases", len(strengths))
    phrases = tuple(Phrase(words, value, index) for index, (words, value) in enumerate(strengths.items(), 1))
    return Prompt(text, phrases)


def bare_words(words: str) -> str:
    """Lower-case words without article, surrounding punctuation and repeated blanks.

    :param words: of a phrase
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

    A class that two phrases mean belongs to the narrower one: in "vehicle, car:2" cars belong to the second.

    :param prompt: the phrases
    :param vocabulary: the known classes
    :param name: of the parameter or flag, for errors
    :returns: class names for each phrase, in its order; a broader phrase may be left with none
    :raises ConfigError: an unknown phrase (the message lists what is known), or two phrases for the same classes
    """
    known: dict[str, list[str]] = {}
    for item, others in vocabulary.items():
        for word in (item, *others):
            classes = known.setdefault(word, [])
            if item not in classes:
                classes.append(item)
    meant = [_lookup(phrase.text, known, vocabulary, name) for phrase in prompt.phrases]
    owner: dict[str, int] = {}
    for index, classes in enumerate(meant):
        for item in classes:
            other = owner.setdefault(item, index)
            if other != index and set(meant[other]) == set(classes):
                twice = f"{prompt.phrases[other].text!r} and {prompt.phrases[index].text!r}"
                raise ConfigError(name, "one phrase for each class", f"{twice}, which both mean {', '.join(classes)}")
            if len(classes) < len(meant[other]):
                owner[item] = index
    return tuple(tuple(item for item in classes if owner[item] == index) for index, classes in enumerate(meant))


def _lookup(phrase: str, known: Mapping[str, list[str]], vocabulary: Vocabulary, name: str) -> list[str]:
    for form in singulars(phrase):
        if form in known:
            return known[form]
    near = difflib.get_close_matches(singulars(phrase)[-1], known, n=1, cutoff=0.75)
    remedy = f"did you mean {near[0]}?" if near else "another localizer takes any words"
    raise ConfigError(name, f"made of what the localizer knows ({', '.join(vocabulary)})", repr(phrase), remedy)


def singulars(phrase: str) -> list[str]:
    """The phrase itself, then the singulars of which it may be the plural.

    :param phrase: lower case
    """
    *head, last = phrase.split()
    forms = [_IRREGULAR[last]] if last in _IRREGULAR else []
    for ending, replacement in (("men", "man"), ("ies", "y"), ("es", ""), ("s", "")):
        if last.endswith(ending) and len(last) > len(ending) + 1:
            forms.append(last.removesuffix(ending) + replacement)
    return [" ".join((*head, word)) for word in (last, *forms)]
