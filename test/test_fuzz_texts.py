"""Whatever the text is: a prompt, or one typed error of one line, in time that grows with its length.

Bounded in CI; longer by ``pytest test/test_fuzz_texts.py --hypothesis-profile fuzz``.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.errors import ConfigError, TextDifuseError
from textdifuse_ros.localize.builtin import VOCABULARY
from textdifuse_ros.localize.fixed import FixedLocalizer
from textdifuse_ros.localize.prompt import (
    MAX_LENGTH,
    MAX_PHRASES,
    STRENGTH_HIGH,
    STRENGTH_LOW,
    Prompt,
    parse_prompt,
    resolve,
)

WORDS = st.sampled_from(
    ["person", "car", "the ", "a ", " and ", "please ", "Highlight", "find", "make ", " stand out", " in the image",
    ", ",
     ",", ";", "&", ":", ".", " . ", "!", "?", "\n", "\u3001", "\uff0c", "\uff1a", "\uff0e", "\u3002", "\u060c", "0.5",
     "1", "-", "+", "nan", "inf", "1e9", "\u0665", "\u00b2", " ", "\u3000", "\t", "'", '"', "\x00", "\ud800", "\u0130"]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=30).map("".join))
LONG = st.builds(
    lambda before, unit, count, after: before + unit * count + after,
    st.text(max_size=3), st.lists(WORDS, min_size=1, max_size=3).map("".join), st.integers(0, 20_000),
    st.text(max_size=3),
)  # fmt: skip


def parsed(text: str) -> Prompt | None:
    try:
        return parse_prompt(text)
    except ConfigError as error:
        assert len(str(error)) < 1000 and "\n" not in str(error)
        return None


@given(st.one_of(TEXTS, LONG))
def test_any_text_is_a_prompt_or_refused(text: str) -> None:
    prompt = parsed(text)
    if prompt is None:
        return
    assert len(text) <= MAX_LENGTH and len(prompt.phrases) <= MAX_PHRASES and prompt.text == text
    assert [phrase.index for phrase in prompt.phrases] == list(range(1, len(prompt.phrases) + 1))
    assert len(set(prompt.names)) == len(prompt.names) and all(prompt.names)
    assert all(STRENGTH_LOW <= phrase.strength <= STRENGTH_HIGH for phrase in prompt.phrases)
    try:
        assert len(resolve(prompt, VOCABULARY)) == len(prompt.phrases)
    except ConfigError as error:
        assert len(str(error)) < 2000 and "\n" not in str(error)


@given(st.lists(st.sampled_from(["person", "red car", "traffic light", "dog"]), min_size=1, max_size=5, unique=True),
       st.sampled_from([",", ";", " & ", " and ", " . ", ". ", "\n", "\u3001", "\uff0c", "\uff1b", "\u3002", "\uff0e",
       "\u060c"]),
       st.booleans(), st.booleans())  # fmt: skip
def test_every_separator_separates(phrases: list[str], separator: str, is_request: bool, is_last: bool) -> None:
    text = ("Please highlight: " if is_request else "") + separator.join(phrases) + (separator if is_last else "")
    assert (is_last and separator == " and ") or parse_prompt(text).names == tuple(phrases)


@given(st.one_of(TEXTS, st.lists(st.one_of(WORDS, st.sampled_from(["1 2 3 4", "5 5 9 9"])), max_size=20).map("".join)))
def test_any_regions_are_read_or_refused(text: str) -> None:
    try:
        FixedLocalizer.from_config(LocalizerConfig(localizer="fixed", regions=text))
    except TextDifuseError as error:
        assert len(str(error)) < 2000 and "\n" not in str(error)
