"""One evaluation from start to end: rows, panel, report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from textdifuse_ros import __version__
from textdifuse_ros.config.localizer import LocalizerConfig
from textdifuse_ros.data.conditions import CONDITIONS
from textdifuse_ros.errors import ConfigError, FileError
from textdifuse_ros.evaluate.detection import TEXT, Judge, detection_rows, run_detection
from textdifuse_ros.evaluate.detection_images import make_detection_example
from textdifuse_ros.evaluate.highlight import PLAIN, Objects, run_text, select_labeled
from textdifuse_ros.evaluate.images import Example, choose_examples, make_example
from textdifuse_ros.evaluate.methods import CLEAN, MODEL, PRE, Row, control_rows, input_folders
from textdifuse_ros.evaluate.panels import PanelPlan, run_pairs
from textdifuse_ros.evaluate.report import write_report
from textdifuse_ros.evaluate.results import Evaluation
from textdifuse_ros.evaluate.sequence import EACH, apply_gain, run_video
from textdifuse_ros.evaluate.sets import PairSet, limit_pairs
from textdifuse_ros.evaluate.steps import Sampling, make_steps_example, run_steps
from textdifuse_ros.localize.prompt import parse_prompt

if TYPE_CHECKING:
    from textdifuse_ros.fusion.fuser import Fuser
    from textdifuse_ros.runtime.image_target import ImageTarget

PANELS = ("clean", "degraded", "video", "text", "detection", "steps")
_LABELED = ("text", "detection")
TEXT_DEFAULT = "person, car"
"""The text of the detection panel, and the classes of its means."""


@dataclass(frozen=True)
class Request:
    """What to measure.

    :ivar pairs: the set
    :ivar panel: one of :data:`PANELS`
    :ivar limit: maximum number of pairs, see :func:`select_pairs`; 0 for all
    :ivar methods: rows whose results are read from folders
    :ivar preprocessed: names of controls, or of the model, that get a row ``NAME+pre``
    :ivar conditions: degradations of the degraded panel, () for all, or of the steps panel, () for some
    :ivar workers: number of processes for the metrics
    :ivar fused: folder for the images of the model, one sub-folder per row; None for a temporary one
    :ivar inputs: folder for the input images of the methods (clean and degraded panel), or None
    :ivar objects: labeled objects, for the text and the detection panel
    :ivar strength: strength of the objects for the model, in [-1, 2], for the text and the detection panel
    :ivar detector: ONNX file of the detection panel
    :ivar text: the text of the detection panel
    :ivar localizer: finds the objects of the text
    :ivar sampling: what the steps panel compares
    :ivar report: folder of the report, or None
    :ivar examples: number of scenes in the report; in the degraded panel one per condition, unless this is 0
    :ivar about: further names and values for the report
    """

    pairs: PairSet
    panel: str = "clean"
    limit: int = 0
    methods: tuple[Row, ...] = ()
    preprocessed: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    workers: int = 1
    fused: Path | None = None
    inputs: Path | None = None
    objects: Objects | None = None
    strength: float = 1.0
    detector: Path | None = None
    text: str = TEXT_DEFAULT
    localizer: LocalizerConfig = field(default_factory=LocalizerConfig)
    sampling: Sampling = field(default_factory=Sampling)
    report: Path | None = None
    examples: int = 6
    about: tuple[tuple[str, str], ...] = ()

    @property
    def judge(self) -> Judge:
        """What judges the images of the detection panel."""
        assert self.detector is not None and self.objects is not None
        return Judge(self.detector, self.objects.folder, self.text)


def select_pairs(request: Request) -> PairSet:
    """Select the pairs to measure: with --boxes or --masks those with objects, in the video panel the first ones.

    :param request: what to measure
    :raises FileError: the folder of the objects is missing, or no pair has objects
    """
    pairs = request.pairs
    if request.panel in _LABELED and request.objects is not None:
        pairs = select_labeled(pairs, request.objects)
    # A sequence consists of consecutive frames.
    return limit_pairs(pairs, request.limit, first=request.panel == "video")


def run(
    request: Request,
    fuser: Fuser | None = None,
    progress: Callable[[], object] = lambda: None,
    measured: Callable[[Evaluation], object] = lambda _: None,
) -> Evaluation:
    """Measure a panel, and write its report if requested.

    :param request: what to measure
    :param fuser: the model under test, or None
    :param progress: called once per measured pair (in the video panel: per frame after the first)
    :param measured: called with the results before the report is written, so that a failed write does not lose them
    :raises ConfigError: options that exclude each other
    :raises FileError: an image is missing or unreadable, an input image would be overwritten, or a file cannot be
        written
    :raises ImageError: an image has another size than its pair, or an infrared image is colored
    """
    _check(request, fuser)
    unlabeled: set[str] = set()
    if request.objects is not None:
        labeled = select_labeled(request.pairs, request.objects)
        unlabeled = {pair.stem for pair in request.pairs.pairs} - {pair.stem for pair in labeled.pairs}
    request = replace(request, pairs=select_pairs(request))
    with ExitStack() as stack:
        folder = request.fused
        if fuser is not None and folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="textdifuse-")))
        plan = _plan(request, folder if fuser is not None else None)
        _check_targets(request, plan)
        if request.panel == "video":
            mapped = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="textdifuse-")))
            plan = replace(plan, pairs=apply_gain(plan.pairs, mapped))
            evaluation = run_video(plan, fuser, request.workers, progress)
        elif request.panel == "text":
            assert request.objects is not None
            evaluation = run_text(plan, request.objects, fuser, request.strength, request.workers, progress)
        elif request.panel == "detection":
            target = _target(request, stack) if fuser is not None else None
            evaluation = run_detection(plan, request.judge, fuser, target, request.workers, progress)
        elif request.panel == "steps":
            assert fuser is not None
            evaluation = run_steps(plan.pairs, request.conditions, request.sampling, fuser, progress)
        else:
            evaluation = run_pairs(plan, fuser, request.workers, progress)
        if unlabeled:
            names = ", ".join(sorted(unlabeled))
            note = f"Left out, without labeled objects: {len(unlabeled)} images ({names})."
            evaluation = replace(evaluation, notes=(*evaluation.notes, note))
        evaluation = replace(evaluation, about=_about(request, evaluation, fuser))
        measured(evaluation)
        if request.report:
            write_report(request.report, evaluation, _examples(request, plan, evaluation, fuser))
    return evaluation


def _check(request: Request, fuser: Fuser | None) -> None:
    if request.panel not in PANELS:
        raise ConfigError("--panel", f"one of {', '.join(PANELS)}", repr(request.panel))
    for name in request.conditions:
        if name not in CONDITIONS and (name, request.panel) != (CLEAN, "steps"):
            raise ConfigError("--condition", f"one of {', '.join(CONDITIONS)}", repr(name))
    if request.conditions and request.panel not in ("degraded", "steps"):
        raise ConfigError("--condition", "given with --panel degraded or steps", f"--panel {request.panel}")
    if request.panel in ("video", "steps", *_LABELED):
        for option, value in (("--pre", request.preprocessed), ("--save-inputs", request.inputs)):
            if value:
                raise ConfigError(option, "given with --panel clean or degraded", f"--panel {request.panel}")
    if fuser is None:
        model_options = ((f"--pre {MODEL}", MODEL in request.preprocessed), ("--save-fused", bool(request.fused)))
        for option, is_given in model_options:
            if is_given:
                raise ConfigError(option, "given with --model", "no model")
    if request.panel == "steps":
        _check_steps(request, fuser)
    if request.panel == "text":
        if request.objects is None:
            raise ConfigError("--panel text", "given with --boxes or --masks", "neither")
    elif request.panel == "detection":
        if request.objects is None or request.objects.masks or request.detector is None:
            raise ConfigError("--panel detection", "given with --detector and --boxes", "an incomplete input")
    elif request.objects is not None:
        raise ConfigError("--boxes or --masks", "given with --panel text or detection", f"--panel {request.panel}")
    if request.detector is not None and request.panel != "detection":
        raise ConfigError("--detector", "given with --panel detection", f"--panel {request.panel}")


def _check_steps(request: Request, fuser: Fuser | None) -> None:
    """Check the options of the steps panel, which restores by the model only."""
    request.sampling.check()
    if fuser is None:
        raise ConfigError("--panel steps", "given with --model", "no model")
    for option, value in (("--method", request.methods), ("--save-fused", request.fused)):
        if value:
            raise ConfigError(option, "given with another panel", "--panel steps")


def _check_targets(request: Request, plan: PanelPlan) -> None:
    """Check that no image is saved in a folder that images are read from, where it could overwrite one."""
    read = {path.parent for pair in plan.pairs.pairs for path in (pair.visible, pair.infrared)}
    if request.objects is not None:
        read.add(request.objects.folder)
    for row in plan.rows:
        if row.folder is not None and row not in plan.model_rows:
            read |= {row.folder / part for part in plan.layout}
    saved = {"--save-fused": [row.folder / part for row in plan.model_rows if row.folder for part in plan.layout]}
    if request.inputs is not None:
        saved["--save-inputs"] = [folder for part in plan.layout for folder in input_folders(request.inputs, part)]
    if request.report is not None:
        saved["--report"] = [request.report]
    inputs = {folder.resolve() for folder in read}
    for option, folders in saved.items():
        for folder in folders:
            if folder.resolve() in inputs:
                remedy = "its images would be overwritten; choose another folder"
                raise FileError(option, "a folder that no image is read from", folder, remedy)


def _plan(request: Request, model_folder: Path | None) -> PanelPlan:
    model_rows: tuple[Row, ...] = ()
    if model_folder is not None:
        names = [MODEL, *([MODEL + PRE] if MODEL in request.preprocessed else [])]
        if request.panel == "text":
            names.append(MODEL + PLAIN)
        if request.panel == "detection" and parse_prompt(request.text, "--text"):
            names.append(MODEL + TEXT)
        if request.panel == "video":
            names.append(MODEL + EACH)
        model_rows = tuple(Row(name, model_folder / name) for name in names)
    conditions = (request.conditions or tuple(CONDITIONS)) if request.panel == "degraded" else ()
    if request.panel == "steps":
        return PanelPlan(request.pairs, ())
    if request.panel == "detection":
        rows = detection_rows(model_rows, request.methods)
    else:
        controls = control_rows([name for name in request.preprocessed if name != MODEL])
        rows = (*controls, *request.methods, *model_rows)
    plan = PanelPlan(request.pairs, rows, conditions, model_rows, request.inputs)
    names = [row.name for row in plan.rows]
    for row in request.methods:
        if names.count(row.name) > 1:
            remedy = "--model has a row of that name" if row.name in [item.name for item in model_rows] else ""
            raise ConfigError("--method", "given once for each name", f"{row.name} twice", remedy)
    return plan


def _target(request: Request, stack: ExitStack) -> ImageTarget | None:
    """Load the localizer of the text; it is closed at the end of ``stack``."""
    from textdifuse_ros.runtime.image_target import ImageTarget

    target = ImageTarget.from_config(request.text, request.strength, request.localizer)
    if target is not None:
        stack.callback(target.localizer.close)
    return target


def _examples(request: Request, plan: PanelPlan, evaluation: Evaluation, fuser: Fuser | None) -> list[Example]:
    chosen = choose_examples(plan.pairs, tuple(evaluation.conditions), request.examples)
    if request.panel == "steps":
        assert fuser is not None
        return [make_steps_example(pair, condition, request.sampling, fuser) for pair, condition in chosen]
    if request.panel == "detection":
        kinds = [name.partition("_")[2] for name in evaluation.table.metrics if name.startswith("AP50_")]
        return [make_detection_example(pair, plan.rows, request.judge, kinds) for pair, _ in chosen]
    return [make_example(pair, condition, plan.rows) for pair, condition in chosen]


def _about(request: Request, evaluation: Evaluation, fuser: Fuser | None) -> dict[str, str]:
    methods = [row.name for row in evaluation.rows if not row.is_control]
    about = {
        "made by": f"textdifuse_ros {__version__}",
        "set": f"{request.pairs.name}, {evaluation.pairs} pairs",
        "methods": ", ".join(methods) or "none, only controls",
    }
    if fuser is not None:
        config = fuser.config
        steps = "" if request.panel == "steps" else f"{config.steps} steps ({config.sampler}), "
        about["model"] = (
            f"{Path(config.model).stem}, {steps}seed {config.seed}, {fuser.device}, "
            f"{str(fuser.dtype).removeprefix('torch.')}, weights sha256 {fuser.weights[:16]}"
        )
        if request.panel in _LABELED:
            about["strength"] = f"{request.strength:g}"
    return {**about, **evaluation.about, **dict(request.about)}
