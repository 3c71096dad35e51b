"""One evaluation from beginning to end: the rows, the panel, the report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from textdifuse_ros import __version__
from textdifuse_ros.data.conditions import CONDITIONS
from textdifuse_ros.errors import ConfigError, FileError
from textdifuse_ros.evaluate.highlight import PLAIN, Objects, labeled, run_text
from textdifuse_ros.evaluate.images import Example, choose_examples, make_example
from textdifuse_ros.evaluate.methods import MODEL, PRE, Row, control_rows, input_folders
from textdifuse_ros.evaluate.panels import PanelPlan, run_pairs
from textdifuse_ros.evaluate.report import write_report
from textdifuse_ros.evaluate.results import Evaluation
from textdifuse_ros.evaluate.sequence import EACH, run_video, with_gain
from textdifuse_ros.evaluate.sets import PairSet, limited

if TYPE_CHECKING:
    from textdifuse_ros.fusion.fuser import Fuser

PANELS = ("clean", "degraded", "video", "text")


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    :ivar limit: measure only so many pairs, see :func:`selected`; 0 for all
    :ivar methods: rows whose results lie in folders
    :ivar preprocessed: names of controls, or the model's, that get a row ``NAME+pre``
    :ivar conditions: of the degraded panel; () for all
    :ivar workers: processes
    :ivar fused: folder where the model's images stay, below it one folder a row; None for a temporary one
    :ivar inputs: folder to save what the methods are given (clean and degraded panel), or None
    :ivar objects: boxes or masks, for the text panel
    :ivar strength: of the objects in the model's images, for the text panel
    :ivar report: folder of the report, or None
    :ivar examples: scenes in the report; in the degraded panel one a condition, unless this is 0
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
    report: Path | None = None
    examples: int = 6
    about: tuple[tuple[str, str], ...] = ()


def selected(request: Request) -> PairSet:
    """The pairs that are measured: of the text panel those with objects; of the video panel's the first ones.

    :raises FileError: the objects have no folder, or no pair has objects
    """
    pairs = request.pairs
    if request.panel == "text" and request.objects is not None:
        pairs = labeled(pairs, request.objects)
    # Frames that do not follow one another are no sequence.
    return limited(pairs, request.limit, first=request.panel == "video")


def run(
    request: Request,
    fuser: Fuser | None = None,
    progress: Callable[[], object] = lambda: None,
    measured: Callable[[Evaluation], object] = lambda _: None,
) -> Evaluation:
    """Measure a panel, and write its report where one is asked for.

    :param fuser: the model under test, or None for none
    :param progress: called once for each pair (in the video panel: frame after the first) measured
    :param measured: called with the figures before the report is written, so that they are not lost where it cannot be
    :raises ConfigError: options that do not go together
    :raises FileError: an image is missing or unreadable, images would be saved over those that are read, or a file
        cannot be written
    :raises ImageError: an image of another size than its pair, or a colored infrared one
    """
    _check(request, fuser)
    unlabeled: set[str] = set()
    if request.objects is not None:
        known = labeled(request.pairs, request.objects)
        unlabeled = {pair.stem for pair in request.pairs.pairs} - {pair.stem for pair in known.pairs}
    request = replace(request, pairs=selected(request))
    with ExitStack() as stack:
        folder = request.fused
        if fuser is not None and folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="textdifuse-")))
        plan = _plan(request, folder if fuser is not None else None)
        _check_targets(request, plan)
        if request.panel == "video":
            mapped = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="textdifuse-")))
            plan = replace(plan, pairs=with_gain(plan.pairs, mapped))
            evaluation = run_video(plan, fuser, request.workers, progress)
        elif request.panel == "text":
            assert request.objects is not None
            evaluation = run_text(plan, request.objects, fuser, request.strength, request.workers, progress)
        else:
            evaluation = run_pairs(plan, fuser, request.workers, progress)
        if unlabeled:
            names = ", ".join(sorted(unlabeled))
            left = f"Left out for want of labeled objects: {len(unlabeled)} images ({names})."
            evaluation = replace(evaluation, notes=(*evaluation.notes, left))
        evaluation = replace(evaluation, about=_about(request, evaluation, fuser))
        measured(evaluation)
        if request.report:
            write_report(request.report, evaluation, _examples(request, plan))
    return evaluation


def _check(request: Request, fuser: Fuser | None) -> None:
    if request.panel not in PANELS:
        raise ConfigError("--panel", f"one of {', '.join(PANELS)}", repr(request.panel))
    for name in request.conditions:
        if name not in CONDITIONS:
            raise ConfigError("--condition", f"one of {', '.join(CONDITIONS)}", repr(name))
    if request.conditions and request.panel != "degraded":
        raise ConfigError("--condition", "given with --panel degraded", f"--panel {request.panel}")
    if request.panel in ("video", "text"):
        for option, value in (("--pre", request.preprocessed), ("--save-inputs", request.inputs)):
            if value:
                raise ConfigError(option, "given with --panel clean or degraded", f"--panel {request.panel}")
    if fuser is None:
        for option, asked in ((f"--pre {MODEL}", MODEL in request.preprocessed), ("--save-fused", request.fused)):
            if asked:
                raise ConfigError(option, "given with --model", "no model")
    if request.panel == "text":
        if request.objects is None:
            raise ConfigError("--panel text", "given with --boxes or --masks", "neither")
    elif request.objects is not None:
        raise ConfigError("--boxes or --masks", "given with --panel text", f"--panel {request.panel}")


def _check_targets(request: Request, plan: PanelPlan) -> None:
    """Refuse to save images in a folder that others are read from: they would be replaced by them."""
    read = {path.parent for pair in plan.pairs.pairs for path in (pair.visible, pair.infrared)}
    if request.objects is not None:
        read.add(request.objects.folder)
    for row in plan.rows:
        if row.folder is not None and row not in plan.modeled:
            read |= {row.folder / part for part in plan.layout}
    saved = {"--save-fused": [row.folder / part for row in plan.modeled if row.folder for part in plan.layout]}
    if request.inputs is not None:
        saved["--save-inputs"] = [folder for part in plan.layout for folder in input_folders(request.inputs, part)]
    if request.report is not None:
        saved["--report"] = [request.report]
    known = {folder.resolve() for folder in read}
    for option, folders in saved.items():
        for folder in folders:
            if folder.resolve() in known:
                remedy = "images there would be overwritten; name another one"
                raise FileError(option, "a folder in which no images are that are read", folder, remedy)


def _plan(request: Request, model_folder: Path | None) -> PanelPlan:
    rows = control_rows([name for name in request.preprocessed if name != MODEL])
    modeled: tuple[Row, ...] = ()
    if model_folder is not None:
        names = [MODEL, *([MODEL + PRE] if MODEL in request.preprocessed else [])]
        if request.panel == "text":
            names.append(MODEL + PLAIN)
        if request.panel == "video":
            names.append(MODEL + EACH)
        modeled = tuple(Row(name, model_folder / name) for name in names)
    conditions = (request.conditions or tuple(CONDITIONS)) if request.panel == "degraded" else ()
    plan = PanelPlan(request.pairs, (*rows, *request.methods, *modeled), conditions, modeled, request.inputs)
    names = [row.name for row in plan.rows]
    for row in request.methods:
        if names.count(row.name) > 1:
            remedy = "--model has a row of that name" if row.name in [mine.name for mine in modeled] else ""
            raise ConfigError("--method", "given once for each name", f"{row.name} twice", remedy)
    return plan


def _examples(request: Request, plan: PanelPlan) -> list[Example]:
    chosen = choose_examples(plan.pairs, plan.conditions, request.examples)
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
        about["model"] = (
            f"{Path(config.model).stem}, {config.steps} steps ({config.sampler}), seed {config.seed}, {fuser.device}, "
            f"{str(fuser.dtype).removeprefix('torch.')}, weights sha256 {fuser.weights[:16]}"
        )
        if request.panel == "text":
            about["strength"] = f"{request.strength:g}"
    return {**about, **dict(request.about)}
