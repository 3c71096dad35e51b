"""Fuse a whole recording: every pair, without ROS, resumed where an earlier run was killed.

Pairs are those of :mod:`textdifuse_ros.sync.recorded`, in the order of their stamps; messages become images by
:class:`.SensorIntake`, as in the node. Each pair gives the topics of the node, under the header of its visible image
and at the log time of its later half: ``/NAME/fused``, ``/NAME/provenance``, and with a text ``/NAME/mask``.

A pair depends on earlier ones by the gain of thermal counts and by the video state. A resumed run therefore passes the
infrared images of the finished pieces through the intake again, without fusing them, and reads the video state saved in
the last piece. The bytes are those of an uninterrupted run.
"""

from __future__ import annotations

import heapq
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textdifuse_ros import __version__
from textdifuse_ros.bags.definitions import common_types
from textdifuse_ros.bags.reader import BagMessage, BagReader
from textdifuse_ros.bags.segments import Pieces, read_notes
from textdifuse_ros.config.base import to_mapping
from textdifuse_ros.config.sensors import NAMES
from textdifuse_ros.errors import BagError, CalibrationError, ConfigError, ImageError, shorten
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.image.intake import BAD_INFRARED, BAD_VISIBLE, AlignedPair, IntakeError, SensorIntake
from textdifuse_ros.offline.interrupts import deferred_signals
from textdifuse_ros.offline.messages import OUTPUTS, Header, fused_messages
from textdifuse_ros.offline.plan import RecordingJob, RecordingPlan, prefix, stamp_or_zero
from textdifuse_ros.runtime.engine import DirectBackend, FusionRequest
from textdifuse_ros.runtime.image_target import ImageTarget
from textdifuse_ros.runtime.processor import PairProcessor
from textdifuse_ros.runtime.worker import FUSION_ERROR
from textdifuse_ros.sensors import INFRARED, SENSORS
from textdifuse_ros.sync.recorded import RecordedPair

PIECE_PAIRS = 50
"""Pairs of a piece: the most that a killed run loses. One that is stopped by a signal loses none."""
PIECE_SECONDS = 10.0
"""Time after which a piece ends, with the current pair [s]."""
TRIALS, TRIAL_SECONDS = 4, 2.0
"""Most runs of the pair that is measured at the beginning, and the time after which no other begins [s]."""
NOTE = "textdifuse"
VIDEO_STATE = "video.npz"
_NAME = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*/?", re.ASCII)


@dataclass(frozen=True)
class RecordingProgress:
    """The progress of a job.

    :ivar done: pairs that were fused or have failed
    :ivar total: pairs in all
    :ivar topics: of the visible and of the infrared images
    :ivar summary: None until the end: ``pairs``, ``fused``, ``failed`` (by reason, with the first error of each) and
        of each stream ``topic``, ``received``, ``paired``, ``dropped`` (by reason); of the infrared ``no_value`` if
        there are pixels without a value: the ``images`` and their largest ``percent``; ``remarks`` if there are any on
        what is left out or miscounted
    :ivar seconds_per_pair: measured time of one pair on this machine before the first one, without the localizer [s]
    """

    done: int
    total: int
    topics: tuple[str, str]
    summary: dict[str, Any] | None = None
    seconds_per_pair: float | None = None


def fuse_recording(job: RecordingJob) -> Iterator[RecordingProgress]:
    """Fuse a recording, yielding its progress; may be abandoned at any time.

    Pairs that cannot be decoded, aligned or fused are counted and left out. An output that the same job has already
    finished is left as it is.

    :param job: the recording and the parameters
    :raises TextDifuseError: the recording, a parameter, the weights or the device are unusable, or no pair can be fused
    """
    with ExitStack() as stack:
        bag = stack.enter_context(BagReader(job.source))
        _check_names(bag, job)
        plan = RecordingPlan.of(bag, job)
        fuser = Fuser.from_config(job.config)
        stack.callback(fuser.close)
        target = ImageTarget.from_config(job.text, job.strength, job.localizer)
        if target is not None:
            stack.callback(target.localizer.close)
            fuser.require_modulation()
        if job.confidence:
            fuser.require_confidence()
        identity = _identity(job, plan, fuser, target)
        processor = PairProcessor(DirectBackend(fuser), target)
        pair_fuser = _RecordingFuser(job, plan, processor)  # checks the calibrations: before anything is written
        unfinished = Pieces(job.output, identity, job.storage, restart=job.restart, beside=(VIDEO_STATE,))
        pieces = stack.enter_context(unfinished)
        made = _made_before(job.output, pieces)
        if made is None:
            # Fusing changes the state of what fuses, so the measurement has one of its own.
            trial = _RecordingFuser(job, plan, PairProcessor(DirectBackend(fuser)))
            yield from _fuse_pieces(bag, plan, pieces, pair_fuser, trial)
            made = _finish(bag, job, plan, pieces, pair_fuser.no_value)
        yield RecordingProgress(len(plan.pairs), len(plan.pairs), plan.topics, made)


def _check_names(bag: BagReader, job: RecordingJob) -> None:
    """Check that output topics differ from copied ones, and that a node can have the name."""
    if not _NAME.fullmatch(job.name):
        expected = "letters, digits and _, in parts separated by /, none beginning with a digit"
        raise ConfigError("--name", expected, repr(job.name))
    taken = sorted(bag.topics().keys() & {f"{prefix(job)}/{output}" for output in OUTPUTS})
    if job.copy_topics and taken:
        raise BagError(f"the topics of {job.source}", "others than those made", taken[0], "name the node by --name")


class _RecordingFuser:
    """Turns the two messages of a pair into the messages of the output.

    :ivar no_value: shares of the infrared pixels without a value, of the fused images that have such pixels
    """

    def __init__(self, job: RecordingJob, plan: RecordingPlan, processor: PairProcessor) -> None:
        self.no_value: list[float] = []
        self._store = common_types()
        self._prefix = prefix(job)
        self._intake = SensorIntake(job.config)
        self._processor = processor
        config = job.config
        self._request = FusionRequest(
            config.steps, config.sampler, config.seed, keep_plain=config.video, confidence=job.confidence
        )
        self._video = config.video
        for sensor, message in plan.calibrations.items():
            if sensor in self._intake.required_calibrations:
                self._intake.set_calibration(sensor, self._calibration(message))

    def _decoded(self, message: BagMessage) -> Any:
        return self._store.deserialize_cdr(message.data, message.type)

    def _calibration(self, message: BagMessage) -> Any:
        try:
            return self._decoded(message)
        except Exception as error:  # rosbags raises whatever its generated code stumbles over
            found = shorten(str(error), 200) or type(error).__name__
            raise CalibrationError(f"the first message of {message.topic}", "a readable CameraInfo", found) from error

    def _decoded_image(self, message: BagMessage, reason: str) -> Any:
        try:
            return self._decoded(message)
        except Exception as error:  # rosbags raises whatever its generated code stumbles over
            raise IntakeError(reason, error) from error

    def replay(self, infrared: BagMessage, *, failed: bool) -> None:
        """Update the gain by an image that an earlier run has processed.

        :param infrared: message of the image
        :param failed: whether its pair could not be fused
        """
        with suppress(IntakeError):
            aligned = self._intake.align(None, self._decoded_image(infrared, BAD_INFRARED))
            if not failed:
                self._count(aligned)

    def _count(self, aligned: AlignedPair) -> None:
        if aligned.no_value:
            self.no_value.append(aligned.no_value)

    def load_video_state(self, path: Path) -> None:
        """Continue from the video state that an earlier run saved.

        :param path: of the file; without it the state starts empty
        """
        if self._video:
            self._processor.video.load(path)

    def save_video_state(self, path: Path) -> None:
        """Save the video state for a later run.

        :param path: of the file to write
        """
        if self._video:
            self._processor.video.save(path)

    def fuse(self, pair: RecordedPair, visible: BagMessage, infrared: BagMessage) -> list[BagMessage]:
        """Fuse one pair; returns the messages of the output.

        :param pair: the pair
        :param visible: message of its visible image
        :param infrared: message of its infrared image
        :raises IntakeError: the messages cannot be decoded or aligned
        :raises ImageError: the images cannot be fused
        """
        messages = self._decoded_image(visible, BAD_VISIBLE), self._decoded_image(infrared, BAD_INFRARED)
        aligned = self._intake.align(*messages)
        processed = self._processor.process(
            aligned, self._request, video=self._video, stamp=stamp_or_zero(visible) / 1e9
        )
        labels = None if processed.detections is None else processed.detections.localization.label_map()
        header: Header = messages[0].header
        log_time = max(visible.stamp_ns, infrared.stamp_ns)
        provenance = processed.message_provenance(pair.difference_ns)
        outputs = fused_messages(
            self._store, header, self._prefix, processed.image, labels, provenance, processed.confidence
        )
        written = [BagMessage(topic, kind, log_time, bytes(data)) for topic, kind, data in outputs]
        self._count(aligned)
        return written


def _fuse_pieces(
    bag: BagReader, plan: RecordingPlan, pieces: Pieces, fuser: _RecordingFuser, trial: _RecordingFuser
) -> Iterator[RecordingProgress]:
    """Fuse the missing pieces, after ``trial`` has measured what a pair costs."""
    total = len(plan.pairs)
    notes = pieces.notes()
    failures = {number: reason for note in notes for number, reason, _ in note["failed"]}
    source = enumerate(plan.messages(bag))
    done = sum(note["pairs"] for note in notes)
    for number in range(done):
        _, (_, _, infrared) = next(source)
        if failures.get(number) != BAD_VISIBLE:  # else the intake had stopped before the infrared image
            fuser.replay(infrared, failed=number in failures)
    if pieces.count:
        fuser.load_video_state(pieces.beside(pieces.count - 1, VIDEO_STATE))
    seconds = _measure_cost(bag, plan, trial) if done < total else None
    yield RecordingProgress(done, total, plan.topics, seconds_per_pair=seconds)
    while done < total:
        failed: list[tuple[int, str, str]] = []
        begin, ends = done, time.monotonic() + PIECE_SECONDS
        stopped: BaseException | None = None
        is_whole = True
        with pieces.next_piece() as (writer, note):
            try:
                while done < total and done < begin + PIECE_PAIRS and time.monotonic() < ends:
                    # A signal waits for the end of the pair, so that no pair is written by halves.
                    with deferred_signals():
                        outputs = _fuse_next(source, fuser, failed)
                        is_whole = False
                        for message in outputs:
                            writer.add_topic(message.topic, message.type)
                            writer.write_raw(message.topic, message.stamp_ns, message.data)
                        is_whole = True
                        done += 1
                    yield RecordingProgress(done, total, plan.topics)
            except BagError:  # of the output, which cannot be written any more
                raise
            except BaseException as error:
                if done == begin or not is_whole:
                    raise
                stopped = error  # what is done is kept
            note.update(failed=[entry for entry in failed if entry[0] < done], pairs=done - begin)
            fuser.save_video_state(writer.path / VIDEO_STATE)
        if stopped is not None:
            raise stopped


def _measure_cost(bag: BagReader, plan: RecordingPlan, trial: _RecordingFuser) -> float | None:
    """Measure the time of one pair [s], after the warm-up; None if the first pair cannot be fused."""
    pair, visible, infrared = next(plan.messages(bag))
    seconds: list[float] = []
    while len(seconds) < TRIALS and sum(seconds) < TRIAL_SECONDS:
        begin = time.perf_counter()
        try:
            trial.fuse(pair, visible, infrared)
        except (IntakeError, ImageError):
            return None
        seconds.append(time.perf_counter() - begin)
    return min(seconds, default=None)


def _fuse_next(
    source: Iterator[tuple[int, tuple[RecordedPair, BagMessage, BagMessage]]],
    fuser: _RecordingFuser,
    failed: list[tuple[int, str, str]],
) -> list[BagMessage]:
    """Fuse the next pair and return its messages; note why, if it cannot be fused."""
    number, (pair, visible, infrared) = next(source)
    try:
        return fuser.fuse(pair, visible, infrared)
    except IntakeError as error:
        failed.append((number, error.reason, str(error)))
    except ImageError as error:
        failed.append((number, FUSION_ERROR, str(error)))
    return []


def _finish(
    bag: BagReader, job: RecordingJob, plan: RecordingPlan, pieces: Pieces, no_value: list[float]
) -> dict[str, Any]:
    """Merge the pieces, with the source's topics if requested; returns the summary."""
    failed = [tuple(entry) for note in pieces.notes() for entry in note["failed"]]
    if len(failed) == len(plan.pairs):
        pieces.clear()
        raise BagError(f"the pairs of {job.source}", "such that one can be fused", f"none ({failed[0][2]})")
    summary = _summary(plan, failed)
    if no_value:
        summary[INFRARED]["no_value"] = {"images": len(no_value), "percent": round(100 * max(no_value), 3)}
    with pieces.final() as writer:
        kept = bag.connections() if job.copy_topics else {}
        for topic, connection in kept.items():
            writer.add_topic(topic, connection.msgtype, connection)
        fused = _fused_messages(pieces)
        for message in heapq.merge(bag.messages(), fused, key=_log_time) if kept else fused:
            writer.add_topic(message.topic, message.type)
            writer.write_raw(message.topic, message.stamp_ns, message.data)
        if remarks := bag.remarks():
            summary["remarks"] = remarks
        writer.note(NOTE, json.dumps({"job": json.loads(pieces.job), "summary": summary}, sort_keys=True))
    return summary


def _log_time(message: BagMessage) -> int:
    return message.stamp_ns


def _fused_messages(pieces: Pieces) -> Iterator[BagMessage]:
    for number in range(pieces.count):
        piece = pieces.piece(number)
        if piece is not None:
            with piece:
                yield from piece.messages()


def _summary(plan: RecordingPlan, failed: list[tuple[Any, ...]]) -> dict[str, Any]:
    reasons: dict[str, dict[str, Any]] = {}
    for reason, count in sorted(Counter(reason for _, reason, _ in failed).items()):
        reasons[reason] = {"count": count, "first": next(text for _, other, text in failed if other == reason)}
    streams = {
        stream: {
            "topic": topic,
            "received": plan.received[stream],
            "paired": len(plan.pairs),
            "dropped": dict(sorted(plan.found.dropped[stream].items())),
        }
        for stream, topic in zip(SENSORS, plan.topics, strict=True)
    }
    return {"pairs": len(plan.pairs), "fused": len(plan.pairs) - len(failed), "failed": reasons, **streams}


def _identity(job: RecordingJob, plan: RecordingPlan, fuser: Fuser, target: ImageTarget | None) -> dict[str, Any]:
    """Everything that the bytes of the output depend on."""
    values = to_mapping(job.config)
    names = [*NAMES, "tolerance", "visible_offset", "infrared_offset", "steps", "sampler", "seed", "video"]
    text: dict[str, Any] = {}
    if target is not None:
        text = {"text": target.prompt.text, "strength": job.strength, "localizer": target.localizer.name}
        text["localizer_config"] = to_mapping(job.localizer)
    return {
        "recording": {"topics": list(plan.topics), "received": plan.received, "stamps": plan.digest},
        "parameters": {name: values[name] for name in names},
        "fuser": {
            "model": fuser.model_name,
            "weights": fuser.weights,
            "device": fuser.device,
            "precision": str(fuser.dtype).removeprefix("torch."),
        },
        "output": {
            **{"name": job.name, "storage": job.storage, "copy_topics": job.copy_topics},
            **({"confidence": True} if job.confidence else {}),
        },
        "piece": PIECE_PAIRS,
        "version": __version__,
        **text,
    }


def _made_before(output: Path, pieces: Pieces) -> dict[str, Any] | None:
    """The summary of an output that the same job has finished; its leftovers are removed.

    :raises BagError: the output is something else
    """
    if not output.exists():
        return None
    with suppress(ValueError, KeyError, TypeError):
        note = json.loads(read_notes(output)[NOTE])
        if json.dumps(note["job"], sort_keys=True) == pieces.job:
            summary: dict[str, Any] = note["summary"]
            pieces.clear()
            return summary
    if not pieces.count:
        pieces.clear()
    raise BagError(f"the output {output}", "new, or made by this very job", "something else", "choose another name")
