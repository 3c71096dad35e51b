"""``textdifuse evaluate``: measure the fused images of a set, with the controls for comparison."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textdifuse_ros.cli.outputs import try_outputs
from textdifuse_ros.config.base import FuserConfig, add_arguments, from_arguments, parameters
from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.errors import ConfigError, FileError

if TYPE_CHECKING:
    from textdifuse_ros.evaluate.highlight import Objects
    from textdifuse_ros.evaluate.results import Evaluation
    from textdifuse_ros.evaluate.run import Request
    from textdifuse_ros.evaluate.sets import PairSet
    from textdifuse_ros.evaluate.steps import Sampling
    from textdifuse_ros.fusion.fuser import Fuser

NAME = "evaluate"
HELP = "Measure fused images: metrics with intervals, degradations, flicker, text contrast; tables and a report."
DATA = "TEXTDIFUSE_DATA"
EXAMPLES = 6
_TABLES = ("json", "csv", "markdown", "latex")
_METHOD = """Fused images of a method, DIR/STEM.png; repeatable. Panel degraded: DIR/clean/STEM.png and
DIR/CONDITION/STEM.png, fused from the images of --save-inputs; name it NAME+pre if the pre-processed images were
fused. Panel text: NAME=DIR with the text and NAME_plain=DIR without it."""

_DETECTOR = """Panel detection: the detector, an ONNX file exported from YOLOX or Ultralytics. ONNX Runtime runs it if
installed, OpenCV otherwise."""
_LOCALIZER = ("localizer_model", "localizer_threshold", "localizer_device")
_PRE = """Add the row NAME+pre: the images denoised, white-balanced and brightened by OpenCV, then fused by NAME, a
control or textdifuse; repeatable. Default: max in the panel degraded, none in the others."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    _add_inputs(parser)
    _add_outputs(parser)
    add_arguments(parser, FuserConfig, skip=("model",))
    add_arguments(
        parser,
        LocalizerConfig,
        skip=tuple(item.name for item in parameters(LocalizerConfig) if item.name not in _LOCALIZER),
    )


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--visible", type=Path, metavar="DIR", help="Folder of clean visible images (panel video: frames).")
    add("--infrared", type=Path, metavar="DIR", help="Folder of infrared images of the same names.")
    add("--set", metavar="NAME", help="A named set of the data folder, instead of the two folders.")
    add("--data", type=Path, metavar="DIR", help=f"Data folder of --set. Default: ${DATA}.")
    add("--method", action="append", default=[], metavar="NAME=DIR", help=_METHOD)
    add("--model", metavar="CHECKPOINT", help="Also fuse with this checkpoint: a name, a path, or default.")
    add("--panel", default="clean", metavar="{clean,degraded,video,text,detection,steps}", help="What to measure. "
        "Default: clean.")  # fmt: skip
    add("--condition", action="append", default=[], metavar="NAME", help="Measure only this degradation; repeatable.")
    add("--step-counts", metavar="N,...", help="Panel steps: numbers of reverse steps. Default: 1,2,4,8,25,50.")
    add("--samplers", metavar="NAME,...", help="Panel steps: the samplers. Default: ddim,dpm_solver,ancestral.")
    add("--seeds", type=int, metavar="N", help="Panel steps: draws of each image, with consecutive seeds from "
        "--seed on. Default: 16.")  # fmt: skip
    add("--crop", type=int, metavar="PX", help="Panel steps: side of the square in the middle of each image that is "
        "restored, 0 for the whole image. Default: 256.")  # fmt: skip
    add("--pre", action="append", metavar="NAME", help=_PRE)
    add("--boxes", type=Path, metavar="DIR", help="Panels text and detection: STEM.txt, lines 'class left top right "
        "bottom'.")  # fmt: skip
    add("--masks", type=Path, metavar="DIR", help="Panel text: STEM.png, one grey level per object, 0 background.")
    add("--detector", type=Path, metavar="FILE", help=_DETECTOR)
    add("--text", metavar="T", help="Panel detection: what stands out in the row textdifuse_text; AP50 and AP are "
        "means over its classes. Default: 'person, car'.")  # fmt: skip
    add("--strength", type=float, metavar="S", help="Panels text and detection: strength of the objects for the model, "
        "in [-1, 2]. Default: 1.")  # fmt: skip
    add("--limit", type=int, default=0, metavar="N", help="Measure only N pairs, evenly spread over the names; panel "
        "video: the first N frames; panels text and detection: N pairs with objects. Default: all.")  # fmt: skip
    add("--jobs", type=int, default=0, metavar="N", help="Processes for the metrics. Default: one per processor core.")


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--json", type=Path, metavar="FILE", help="Write means and intervals to FILE.")
    add("--csv", type=Path, metavar="FILE", help="Write the metrics of every image to FILE.")
    add("--markdown", type=Path, metavar="FILE", help="Write the summary tables to FILE.")
    add("--latex", type=Path, metavar="FILE", help="Write the tables to FILE as LaTeX (booktabs).")
    add("--report", type=Path, metavar="DIR", help="Write a report to DIR: index.html, contact sheets and all tables.")
    add("--examples", type=int, metavar="N", help=f"Scenes shown in the report. Default: {EXAMPLES}. Panel "
        "degraded: one per condition, or none if N is 0.")  # fmt: skip
    add("--save-fused", type=Path, metavar="DIR", help="Save the images of the model in DIR/textdifuse.")
    add("--save-inputs", type=Path, metavar="DIR", help="Write DIR/CONDITION/{visible,infrared}[+pre]/STEM.png (panel "
        "clean: DIR/clean/...), to run other methods on.")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Measure, print the summary, and write the requested files.

    :returns: 0
    :raises TextDifuseError: wrong options, or a missing or unsuitable image; nothing is skipped silently
    """
    from textdifuse_ros.evaluate.latex import to_latex
    from textdifuse_ros.evaluate.report import check_report_folder
    from textdifuse_ros.evaluate.run import run as evaluate
    from textdifuse_ros.evaluate.tables import to_csv, to_json, to_markdown, write_text

    request = _request(arguments)
    _check_files(arguments, request)
    if request.report:
        check_report_folder(request.report)
    try_outputs([getattr(arguments, name) for name in _TABLES], (request.report, request.fused, request.inputs))
    fuser = _fuser(arguments)
    try:
        with _bar(request) as bar:

            def print_summary(evaluation: Evaluation) -> None:
                bar.close()
                _print_summary(evaluation)

            evaluation = evaluate(request, fuser, bar.update, print_summary)
    finally:
        if fuser is not None:
            fuser.close()
    for path, text in (
        (arguments.json, to_json),
        (arguments.csv, to_csv),
        (arguments.markdown, to_markdown),
        (arguments.latex, to_latex),
    ):
        if path:
            write_text(path, text(evaluation))
    if request.report:
        print(f"report: {request.report / 'index.html'}")
    return 0


def _check_files(arguments: argparse.Namespace, request: Request) -> None:
    """Check that no table overwrites an input image or another table.

    :raises FileError: names the option
    """
    taken = {path.resolve(): "an input image" for pair in request.pairs.pairs
             for path in (pair.visible, pair.infrared)}  # fmt: skip
    for option in _TABLES:
        path = getattr(arguments, option)
        if path is None or (path.exists() and not path.is_file()):
            continue
        if path.resolve() in taken:
            raise FileError(f"--{option}", "a separate file", f"{path}, {taken[path.resolve()]}")
        taken[path.resolve()] = f"the file of --{option}"


def _print_summary(evaluation: Evaluation) -> None:
    """Print the summary."""
    from textdifuse_ros.evaluate.results import UNDEFINED
    from textdifuse_ros.evaluate.tables import markdown_table, verdict

    print(_title(evaluation))
    print(markdown_table(evaluation.table, intervals=False))
    print(verdict(evaluation))
    for name, part in evaluation.parts.items():
        print(f"{name}: {part.pairs} pairs")
        print(markdown_table(part.table, intervals=False))
    if evaluation.partly_undefined:
        print(UNDEFINED)
    for note in evaluation.notes:
        print(note)


def _request(arguments: argparse.Namespace) -> Request:
    from textdifuse_ros.evaluate.methods import parse_method
    from textdifuse_ros.evaluate.pool import available_cores
    from textdifuse_ros.evaluate.run import TEXT_DEFAULT, Request

    model_options = [item.name for item in parameters(FuserConfig) if item.name != "model"]
    detection, steps = arguments.panel == "detection", arguments.panel == "steps"
    for option, value, requirement, is_given in (
        ("--examples", arguments.examples, "--report", arguments.report),
        ("--strength", arguments.strength, "--panel text or detection", detection or arguments.panel == "text"),
        ("--text", arguments.text, "--panel detection", detection),
        *((f"--{name.replace('_', '-')}", getattr(arguments, name), "--panel steps", steps)
          for name in ("step_counts", "samplers", "seeds", "crop")),
        *((f"--{name}", getattr(arguments, name, None), "another panel than steps", not steps)
          for name in ("steps", "sampler")),
        ("--data", arguments.data, "--set", arguments.set),
        ("--strength", arguments.strength, "--model", arguments.model),
        *(
            (f"--{name.replace('_', '-')}", getattr(arguments, name, None), "--model", arguments.model)
            for name in (*model_options, *_LOCALIZER)
        ),
        *((f"--{name.replace('_', '-')}", getattr(arguments, name, None), "--panel detection", detection)
          for name in _LOCALIZER),
    ):  # fmt: skip
        if value is not None and not is_given:
            raise ConfigError(option, f"given with {requirement}", "without it")
    degraded = arguments.panel == "degraded"
    return Request(
        _pairs(arguments),
        arguments.panel,
        arguments.limit,
        tuple(parse_method(text) for text in arguments.method),
        tuple(dict.fromkeys(arguments.pre if arguments.pre is not None else ["max"] if degraded else [])),
        tuple(dict.fromkeys(arguments.condition)),
        arguments.jobs or available_cores(),
        arguments.save_fused,
        arguments.save_inputs,
        _objects(arguments),
        _strength(arguments),
        detector=arguments.detector,
        text=TEXT_DEFAULT if arguments.text is None else arguments.text,
        sampling=_sampling(arguments),
        localizer=from_arguments(LocalizerConfig, arguments, detector=""),  # another detector
        report=arguments.report,
        examples=_examples(arguments),
    )


def _pairs(arguments: argparse.Namespace) -> PairSet:
    from textdifuse_ros.checks import check_number
    from textdifuse_ros.evaluate.sets import folder_set, named_set

    check_number("--limit", arguments.limit, 0, None, "pairs", integer=True)
    folders = (arguments.visible, arguments.infrared)
    if arguments.set:
        if any(folders):
            raise ConfigError("the input", "either --set or --visible and --infrared", "both")
        data = arguments.data or (Path(os.environ[DATA]) if os.environ.get(DATA) else None)
        if data is None:
            raise ConfigError(f"--set {arguments.set}", "given with a data folder", "none", f"set --data or {DATA}")
        return named_set(arguments.set, data)
    if not all(folders):
        raise ConfigError("the input", "either --set or --visible and --infrared", "an incomplete one")
    return folder_set(*folders)


def _sampling(arguments: argparse.Namespace) -> Sampling:
    from textdifuse_ros.evaluate.steps import Sampling

    values: dict[str, Any] = {}
    if arguments.step_counts is not None:
        try:
            values["counts"] = tuple(int(count) for count in arguments.step_counts.split(","))
        except ValueError:
            raise ConfigError("--step-counts", "integers separated by commas", repr(arguments.step_counts)) from None
    if arguments.samplers is not None:
        values["samplers"] = tuple(name.strip() for name in arguments.samplers.split(","))
    given = {name: getattr(arguments, name) for name in ("seeds", "crop")}
    return Sampling(**values, **{name: value for name, value in given.items() if value is not None})


def _objects(arguments: argparse.Namespace) -> Objects | None:
    from textdifuse_ros.evaluate.highlight import Objects

    if arguments.boxes and arguments.masks:
        raise ConfigError("the objects", "either --boxes or --masks", "both")
    if not arguments.boxes and not arguments.masks:
        return None
    return Objects(arguments.boxes or arguments.masks, bool(arguments.masks))


def _strength(arguments: argparse.Namespace) -> float:
    from textdifuse_ros.checks import check_number
    from textdifuse_ros.localize.prompt import STRENGTH_HIGH, STRENGTH_LOW

    strength: float = 1.0 if arguments.strength is None else arguments.strength
    check_number("--strength", strength, STRENGTH_LOW, STRENGTH_HIGH)
    return strength


def _examples(arguments: argparse.Namespace) -> int:
    from textdifuse_ros.checks import check_number

    examples: int = EXAMPLES if arguments.examples is None else arguments.examples
    check_number("--examples", examples, 0, 1000, integer=True)
    return examples


def _fuser(arguments: argparse.Namespace) -> Fuser | None:
    if not arguments.model:
        return None
    model = FuserConfig().model if arguments.model == "default" else arguments.model
    config = from_arguments(FuserConfig, arguments, model=model)

    from textdifuse_ros.fusion.fuser import Fuser

    return Fuser.from_config(config)


def _bar(request: Request) -> Any:
    from tqdm import tqdm

    from textdifuse_ros.evaluate.run import select_pairs
    from textdifuse_ros.evaluate.steps import CONDITIONS_MEASURED

    # In a sequence, transitions are counted.
    total = len(select_pairs(request).pairs) - (request.panel == "video")
    if request.panel == "steps":
        total *= len(request.conditions or CONDITIONS_MEASURED)
    return tqdm(total=total, desc=f"evaluating {request.panel}", unit="pair", file=sys.stderr)


def _title(evaluation: Evaluation) -> str:
    conditions = f", {len(evaluation.averaged)} conditions" if evaluation.conditions else ""
    return f"{evaluation.set_name}, panel {evaluation.panel}: {evaluation.pairs} pairs{conditions}"
