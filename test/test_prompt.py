"""Parsing of prompts, and their classes in a closed vocabulary."""

from __future__ import annotations

import time

import pytest

from textdifuse_ros.errors import ConfigError
from textdifuse_ros.localize.prompt import MAX_LENGTH, parse_prompt, resolve

VOCABULARY = {
    "person": ("pedestrian", "man", "woman", "child", "cyclist"),
    "bicycle": ("bike", "cyclist"),
    "car": ("vehicle",),
    "bus": ("vehicle", "coach"),
    "traffic light": (),
    "body": (),
}


def read(text: str) -> list[tuple[str, float]]:
    return [(phrase.text, phrase.strength) for phrase in parse_prompt(text).phrases]


@pytest.mark.parametrize(
    "text",
    [
        "person, car",
        "person;car",
        " Person ,, CAR; ",
        "person and car",
        "person & car",
        "person\ncar",
        "the person, and a car",
        "Please highlight the person and the car",
        "Highlight the person and the car, please!",
        "please show me all person and every car in the image.",
        "highlight the person and the car in the picture",
        "Make the person and the car stand out.",
        "Please, focus on the person and the car!",
        "Highlight: person, car",
        "Please highlight : the person and the car",
        # Grounding DINO
        "person . car .",
        "person. car.",
        "a person. a car.",
        "Person . Car . ",
        "person.\ncar.",
        "person .. car",
        "person. And the car",
        # Chinese and Japanese keyboards: full width, ideographic, half width
        "person\uff0ccar",
        "person\u3001car",
        "person\uff64 car",
        "person\uff1bcar",
        "person\uff0ecar\uff0e",
        "person\u3002car\u3002",
        "person\uff61car\uff61",
        "person\uff06car",
        "Highlight\uff1aperson\uff0ccar\uff01",
        "person\u3000and\u3000car\uff1f",
        # Arabic, Urdu, Armenian, Hindi, Amharic
        "person\u060c car",
        "person\u061b car\u061f",
        "person\u06d4 car",
        "person\u055d car",
        "person\u0964 car\u0964",
        "person\u1363 car\u1362",
        # line ends of other systems
        "person\r\ncar\r\n",
        "person\rcar",
        "person\u2028car",
    ],
)
def test_equivalent_texts_give_the_same_phrases(text: str) -> None:
    assert read(text) == [("person", 1.0), ("car", 1.0)]


@pytest.mark.parametrize("text", ["", "  ", " , ; \n", "please", "Please highlight."])
def test_a_text_without_phrases_is_an_empty_prompt(text: str) -> None:
    prompt = parse_prompt(text)
    assert not prompt
    assert prompt.phrases == ()


def test_a_strength_follows_its_phrase() -> None:
    expected = [("person", 1.5), ("car", 0.5), ("sky", -1.0), ("tree", 1.0)]
    assert read("person:1.5, car: 0.5; sky :-1 and tree") == expected


@pytest.mark.parametrize(
    "text",
    [
        "person:0.5, car:1",
        "person:0.5. car:1.",
        "person:.5 . car:1.",
        "person\uff1a0.5\uff0ccar\uff1a1",
        "person\uff1a\uff10\uff0e\uff15\u3001car",
        "person: 0\uff0e5\uff0ecar\uff0e",
    ],
)
def test_a_point_within_a_number_separates_nothing(text: str) -> None:
    assert read(text) == [("person", 0.5), ("car", 1.0)]


def test_a_point_within_a_word_separates_nothing() -> None:
    assert read("no.5 bus, st.john") == [("no.5 bus", 1.0), ("st.john", 1.0)]


def test_phrases_in_other_scripts_are_kept() -> None:
    assert read("\u884c\u4eba\u3001\u8eca\uff1a0.5\u3002") == [("\u884c\u4eba", 1.0), ("\u8eca", 0.5)]


UNITS = ["?", "? ", "please ", "please, ", "please , ", "can you ", "the ", "an", "and ", ":", "a:1,", ".", ". ", ", ",
         "in the image ", "stand out! ", "highlight ", "\uff0c", "\uff0e", "1\uff0e", "\n", " ", "x", "\x00",
         "\ud800"]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("length", [MAX_LENGTH, 1_000_000])
def test_a_long_text_of_any_kind_is_read_or_refused_in_one_line(unit: str, length: int) -> None:
    """With patterns that backtrack, 30,000 characters took 34 s. The limit of CPU time is far from any machine's."""
    begin = time.process_time()
    for before, after in (("", ""), ("x", "x"), ("", "x"), ("x:", ":0.5")):
        filling = unit * (length // len(unit))
        text = before + filling[: length - len(before) - len(after)] + after
        try:
            resolve(parse_prompt(text), VOCABULARY)
        except ConfigError as error:
            assert len(str(error)) < 600 and "\n" not in str(error)
        else:
            assert length <= MAX_LENGTH
    assert time.process_time() - begin < 20


def test_the_longest_text_is_told() -> None:
    assert not parse_prompt(" " * MAX_LENGTH)
    with pytest.raises(ConfigError, match="target_text must be at most 4000 characters, got 4001: 'xxx"):
        parse_prompt("x" * (MAX_LENGTH + 1))


def test_phrases_are_numbered_from_one_and_repeated_ones_count_once() -> None:
    prompt = parse_prompt("car, the car, red car, person")
    assert [(phrase.text, phrase.index) for phrase in prompt.phrases] == [("car", 1), ("red car", 2), ("person", 3)]
    assert prompt.names == ("car", "red car", "person")


def test_words_that_contain_a_separator_stay_whole() -> None:
    assert [text for text, _ in read("sandbox, brand, traffic island")] == ["sandbox", "brand", "traffic island"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("car:much", "a number after each colon, got 'car:much'; write person:1.5"),
        ("car:", "a number after each colon"),
        ("car:1,5", "target_text must be words, got '5'; use a decimal point in strengths, as in person:1.5"),
        ("car:2.5", r"a number in \[-1, 2\], got 2.5"),
        ("car:nan", r"a number in \[-1, 2\]"),
        (":1", "a phrase before each strength"),
        ("car:1, car:2", "one strength for 'car', got 1 and 2"),
        (42, r"target_text must be text, got 42 \(int\)"),
        (",".join(f"thing{n}" for n in range(255)), "at most 254 phrases, got 255"),
    ],
)
def test_an_invalid_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_prompt(text)


def test_errors_name_the_callers_parameter() -> None:
    with pytest.raises(ConfigError, match="--text must be"):
        parse_prompt("car:", "--text")


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("person, car", (("person",), ("car",))),
        ("people; traffic lights", (("person",), ("traffic light",))),
        ("persons, buses", (("person",), ("bus",))),
        ("women", (("person",),)),
        ("children, bodies, coaches", (("person",), ("body",), ("bus",))),
        ("vehicles", (("car", "bus"),)),
        ("cyclist", (("person", "bicycle"),)),
    ],
)
def test_plurals_and_synonyms_are_understood(text: str, classes: tuple) -> None:
    assert resolve(parse_prompt(text), VOCABULARY) == classes


@pytest.mark.parametrize(
    ("text", "classes"), [("vehicle, bus:2", (("car",), ("bus",))), ("bus, vehicle", (("bus",), ("car",)))]
)
def test_a_class_belongs_to_the_narrower_phrase(text: str, classes: tuple) -> None:
    assert resolve(parse_prompt(text), VOCABULARY) == classes


def test_an_unknown_word_is_refused_with_the_known_ones() -> None:
    known = r"the localizer knows \(person, bicycle, car, bus, traffic light, body\), got 'zebra'; other localizers"
    with pytest.raises(ConfigError, match=known):
        resolve(parse_prompt("car, zebra"), VOCABULARY)
    with pytest.raises(ConfigError, match="got 'bicycel'; did you mean bicycle"):
        resolve(parse_prompt("bicycel"), VOCABULARY)


def test_two_phrases_for_one_class_are_refused() -> None:
    with pytest.raises(ConfigError, match="one phrase for each class, got 'person' and 'pedestrians'"):
        resolve(parse_prompt("person, pedestrians:2"), VOCABULARY)
