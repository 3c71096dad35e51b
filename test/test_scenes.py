"""The synthetic drive: reproducibility, ground truth, sensor models, motion and configuration."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from textdifuse_ros.bags.reader import BagReader
from textdifuse_ros.cli import drive as verb
from textdifuse_ros.errors import BagError, ConfigError, FileError
from textdifuse_ros.image.files import read_infrared
from textdifuse_ros.scenes.camera import camera_at, clip_near
from textdifuse_ros.scenes.canvas import DEPTH, Canvas, Light, Surface
from textdifuse_ros.scenes.config import LABELS, DriveSceneConfig
from textdifuse_ros.scenes.drive import Frame, NightDrive, find_boxes
from textdifuse_ros.scenes.noise import value_noise
from textdifuse_ros.scenes.thermal import Air, ThermalSensor, black_body, radiance

SMALL = DriveSceneConfig(width=256, height=192, frames=60)
NAMES = {name: value for value, name in LABELS.items()}


@pytest.fixture(scope="module")
def drive() -> NightDrive:
    return NightDrive(SMALL)


@pytest.fixture(scope="module")
def frames(drive: NightDrive) -> dict[int, Frame]:
    return {index: drive.frame(index) for index in (0, 1, 20, 40, 55)}


def _persons(frame: Frame) -> list[tuple[int, np.ndarray]]:
    """Height [px] and mask of each person of sufficient size."""
    return [
        (box.ymax - box.ymin, frame.instances == box.instance)
        for box in frame.boxes
        if box.label == "person" and box.ymax - box.ymin >= 8 and box.xmax - box.xmin >= 2
    ]


def _ring(mask: np.ndarray, frame: Frame) -> np.ndarray:
    """The background around a mask."""
    around = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    return around & (frame.instances == 0) & (frame.labels != NAMES["sky"])


class TestDeterminism:
    def test_the_same_seed_gives_the_same_bytes_in_any_order(self, frames: dict[int, Frame]) -> None:
        other = NightDrive(SMALL)
        for index in (20, 0):
            again, first = other.frame(index), frames[index]
            for name in ("visible", "infrared", "labels", "instances", "visible_clean"):
                np.testing.assert_array_equal(getattr(again, name), getattr(first, name), err_msg=name)
            assert again.boxes == first.boxes
            assert again.stamp_ns == first.stamp_ns

    def test_another_seed_gives_another_town(self, frames: dict[int, Frame]) -> None:
        other = NightDrive(replace(SMALL, seed=8)).frame(0)
        assert (other.labels != frames[0].labels).mean() > 0.02
        assert (other.visible != frames[0].visible).mean() > 0.2


class TestGroundTruth:
    def test_dtypes_and_sizes(self, frames: dict[int, Frame]) -> None:
        for frame in frames.values():
            assert (frame.visible.shape, frame.visible.dtype) == ((192, 256, 3), np.uint8)
            assert (frame.visible_clean.shape, frame.visible_clean.dtype) == ((192, 256, 3), np.uint8)
            assert (frame.infrared.shape, frame.infrared.dtype) == ((192, 256), np.uint8)
            assert (frame.labels.shape, frame.labels.dtype) == ((192, 256), np.uint8)
            assert (frame.instances.shape, frame.instances.dtype) == ((192, 256), np.uint16)

    def test_every_instance_has_the_box_of_its_mask(self, frames: dict[int, Frame]) -> None:
        for frame in frames.values():
            assert [box.instance for box in frame.boxes] == [int(v) for v in np.unique(frame.instances) if v]
            for box in frame.boxes:
                rows, columns = np.nonzero(frame.instances == box.instance)
                extent = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                assert (box.xmin, box.ymin, box.xmax, box.ymax) == extent

    def test_cars_persons_and_bicycles_are_instances_of_one_class(self, frames: dict[int, Frame]) -> None:
        things = [NAMES[name] for name in ("car", "person", "bicycle")]
        for frame in frames.values():
            np.testing.assert_array_equal(frame.instances > 0, np.isin(frame.labels, things))
            for box in frame.boxes:
                assert set(frame.labels[frame.instances == box.instance]) == {NAMES[box.label]}

    def test_an_instance_has_the_same_class_in_every_frame(self, frames: dict[int, Frame]) -> None:
        labels: dict[int, str] = {}
        for frame in frames.values():
            for box in frame.boxes:
                assert labels.setdefault(box.instance, box.label) == box.label

    def test_every_class_occurs_in_the_drive(self, frames: dict[int, Frame]) -> None:
        values = set().union(*(np.unique(frame.labels).tolist() for frame in frames.values()))
        assert {LABELS[value] for value in values} == set(LABELS.values())

    def test_the_sky_is_above_and_the_road_below(self, frames: dict[int, Frame]) -> None:
        for frame in frames.values():
            assert (frame.labels[-10:] == NAMES["road"]).mean() > 0.5
            assert (frame.labels[:10] == NAMES["sky"]).any()
            assert not (frame.labels[100:] == NAMES["sky"]).any()

    def test_an_empty_image_has_no_boxes(self) -> None:
        assert find_boxes(np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint16)) == []


class TestSensors:
    def test_persons_are_warmer_than_their_surroundings_in_the_infrared(self, frames: dict[int, Frame]) -> None:
        contrasts = []
        for frame in frames.values():
            for _, mask in _persons(frame):
                ring = _ring(mask, frame)
                if mask.sum() >= 12 and ring.any():
                    contrasts.append(float(frame.infrared[mask].mean()) - float(frame.infrared[ring].mean()))
        assert len(contrasts) >= 10
        assert min(contrasts) > 5.0
        assert np.median(contrasts) > 40.0

    def test_persons_beyond_the_headlights_are_visible_in_the_infrared_only(self, frames: dict[int, Frame]) -> None:
        pairs = []
        for frame in frames.values():
            for height, mask in _persons(frame):
                ring = _ring(mask, frame)
                if height < 192 * 0.13 and mask.sum() >= 12 and ring.any():
                    grey = cv2.cvtColor(frame.visible, cv2.COLOR_RGB2GRAY).astype(float)
                    dark = abs(float(grey[mask].mean()) - float(np.median(grey[ring])))
                    pairs.append((dark, float(frame.infrared[mask].mean()) - float(frame.infrared[ring].mean())))
        assert len(pairs) >= 5
        visible, infrared = np.median(np.array(pairs), axis=0)
        assert visible < 12.0
        assert infrared > 5.0 * visible

    def test_the_clean_image_is_brighter(self, frames: dict[int, Frame]) -> None:
        for frame in frames.values():
            assert frame.visible_clean.mean() > 3.0 * frame.visible.mean()

    def test_the_sky_is_colder_than_the_road(self, frames: dict[int, Frame]) -> None:
        for frame in frames.values():
            sky, road = frame.labels == NAMES["sky"], frame.labels == NAMES["road"]
            assert frame.infrared[sky].mean() + 30 < frame.infrared[road].mean()

    def test_the_headlights_illuminate_the_road_ahead(self, frames: dict[int, Frame]) -> None:
        frame = frames[0]
        assert frame.visible[150:, 100:156].mean() > frame.visible[:40, 100:156].mean() + 10

    def test_darkness_noise_and_cast_affect_the_visible_image_only(self) -> None:
        base = replace(SMALL, frames=2, noise=0.0, cast=0.0)
        plain = NightDrive(base).frame(0)
        lighter = NightDrive(replace(base, darkness=0.0)).frame(0)
        assert lighter.visible.mean() > plain.visible.mean() + 5
        grainy = NightDrive(replace(base, noise=1.0)).frame(0)
        assert cv2.Laplacian(grainy.visible, cv2.CV_32F).std() > 1.3 * cv2.Laplacian(plain.visible, cv2.CV_32F).std()
        warm = NightDrive(replace(base, cast=1.0)).frame(0)
        assert warm.visible[..., 2].mean() < 0.85 * plain.visible[..., 2].mean()
        for other in (lighter, grainy, warm):
            np.testing.assert_array_equal(other.labels, plain.labels)
            np.testing.assert_array_equal(other.visible_clean, plain.visible_clean)

    def test_netd_is_the_noise_of_the_thermal_image(self) -> None:
        config = replace(SMALL, netd=0.5, stripes=0.0)
        flat = np.full((192, 256), black_body(285.0), np.float32)
        image = ThermalSensor(config).image(flat, np.random.default_rng(1)).astype(float)
        quiet = ThermalSensor(replace(config, netd=0.0)).image(flat, np.random.default_rng(1))
        assert quiet.std() == 0.0
        step = ThermalSensor(replace(config, netd=0.0)).image(flat * 0 + np.float32(black_body(286.0)), None)  # type: ignore[arg-type]
        levels_per_kelvin = float(step.mean()) - float(quiet.mean())
        assert image.std() == pytest.approx(0.5 * levels_per_kelvin, rel=0.1)

    def test_stripes_are_constant_over_time(self) -> None:
        sensor = ThermalSensor(replace(SMALL, netd=0.0, stripes=1.0))
        flat = np.full((192, 256), black_body(285.0), np.float32)
        one, two = (sensor.image(flat, np.random.default_rng(seed)) for seed in (1, 2))
        np.testing.assert_array_equal(one, two)
        assert one.mean(axis=0).std() > 2.0 * one.mean(axis=1).std()


class TestPhysics:
    def test_a_mirror_reflects_the_sky_and_a_black_body_radiates(self) -> None:
        air = Air(281.0)
        assert radiance(305.0, 1.0, air) == pytest.approx(black_body(305.0))
        assert radiance(305.0, 0.0, air) == pytest.approx(black_body(air.sky))
        assert black_body(300.0) == pytest.approx(1.0)

    def test_the_air_reduces_contrast_with_distance(self) -> None:
        air = Air(281.0)
        warm = [float(air.transmit(black_body(305.0), depth)) for depth in (0.0, 50.0, 400.0)]
        assert warm[0] == pytest.approx(black_body(305.0))
        assert warm[0] > warm[1] > warm[2] > black_body(281.0)

    def test_points_are_projected_by_the_pinhole_model(self) -> None:
        camera = camera_at(replace(SMALL, shake=0.0), 0.0)
        x, y = camera.center
        ahead = camera.position + 10.0 * camera.rotation[2]
        np.testing.assert_allclose(camera.to_pixels(camera.to_camera(ahead[None]))[0], (x, y), atol=1e-9)
        right = ahead + 2.0 * camera.rotation[0]
        expected = (x + 0.2 * camera.focal, y)
        np.testing.assert_allclose(camera.to_pixels(camera.to_camera(right[None]))[0], expected, atol=1e-9)
        np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-12)

    def test_rays_pass_through_their_pixels(self) -> None:
        camera = camera_at(SMALL, 1.3)
        rays = camera.rays()
        points = camera.position + 7.0 * rays[[3, 100, 190], [5, 128, 250]].astype(np.float64)
        pixels = camera.to_pixels(camera.to_camera(points))
        np.testing.assert_allclose(pixels, [(5, 3), (128, 100), (250, 190)], atol=1e-3)

    def test_a_polygon_is_clipped_at_the_near_plane(self) -> None:
        square = np.array([[-1.0, 0.0, -2.0], [1.0, 0.0, -2.0], [1.0, 0.0, 2.0], [-1.0, 0.0, 2.0]])
        cut = clip_near(square)
        assert len(cut) == 4
        assert cut[:, 2].min() == pytest.approx(0.4)
        assert len(clip_near(square - (0.0, 0.0, 9.0))) == 0

    def test_a_nearer_surface_hides_a_farther_one(self) -> None:
        camera = camera_at(replace(SMALL, shake=0.0), 0.0)
        canvas = Canvas(camera, Air(281.0))
        light = Light(np.ones(3, np.float32))
        for depth, label in ((20.0, 6), (10.0, 7)):
            middle = camera.position + depth * camera.rotation[2]
            across, up = camera.rotation[0] * 0.1 * depth, camera.rotation[1] * 0.1 * depth
            points = np.array([middle - across - up, middle + across - up, middle + across + up, middle - across + up])
            canvas.polygon(points, Surface((0.5, 0.5, 0.5), 300.0), light, label, label)
        assert canvas.labels[96, 128] == 7
        assert canvas.data[96, 128, DEPTH] == pytest.approx(10.0, rel=1e-3)


class TestMotion:
    def test_consecutive_frames_are_similar(self, frames: dict[int, Frame]) -> None:
        first, second, later = frames[0], frames[1], frames[20]
        near = np.abs(first.visible_clean.astype(int) - second.visible_clean).mean()
        far = np.abs(first.visible_clean.astype(int) - later.visible_clean).mean()
        assert 0.3 < near < 0.6 * far
        assert 0.001 < (first.labels != second.labels).mean() < 0.12

    def test_the_brightness_of_the_infrared_is_stable(self, drive: NightDrive) -> None:
        means = []
        for index in range(30, 36):
            frame = drive.frame(index)
            means.append(frame.infrared[frame.labels == NAMES["road"]].mean())
        assert max(means) - min(means) < 4.0

    def test_a_parked_car_ahead_grows(self, drive: NightDrive, frames: dict[int, Frame]) -> None:
        def heights(frame: Frame) -> dict[int, int]:
            return {
                box.instance: box.ymax - box.ymin
                for box in frame.boxes
                if box.label == "car" and box.xmin > 0 and box.xmax < 256
            }

        before, after = heights(drive.frame(0)), heights(drive.frame(8))
        grown = [after[key] >= before[key] for key in before.keys() & after.keys()]
        assert len(grown) >= 4
        assert np.mean(grown) > 0.7

    def test_stamps_follow_the_rate(self, frames: dict[int, Frame]) -> None:
        assert frames[1].stamp_ns - frames[0].stamp_ns == 100_000_000
        assert frames[20].stamp_ns - frames[0].stamp_ns == 2_000_000_000


class TestConfiguration:
    @pytest.mark.parametrize(("width", "height"), [(16, 16), (97, 61), (60, 130), (320, 200)])
    def test_any_size(self, width: int, height: int) -> None:
        frame = NightDrive(replace(SMALL, width=width, height=height, frames=2)).frame(1)
        assert frame.visible.shape == (height, width, 3)
        assert frame.infrared.shape == frame.labels.shape == (height, width)
        assert frame.infrared.std() > 5

    def test_a_standing_vehicle_sees_the_same_buildings(self) -> None:
        drive = NightDrive(replace(SMALL, speed=0.0, shake=0.0, frames=10))
        one, two = drive.frame(0), drive.frame(9)
        still = (one.labels == NAMES["building"]) & (two.labels == NAMES["building"])
        # Outlines of passing persons change a few pixels.
        assert (one.visible_clean[still] == two.visible_clean[still]).mean() > 0.98

    def test_a_wide_field_of_view_with_strong_shake_can_be_rendered(self) -> None:
        config = replace(SMALL, field_of_view=120.0, shake=10.0, frames=40, speed=25.0)
        drive = NightDrive(config)
        for index in (0, 13, 39):
            assert drive.frame(index).labels.any()

    @pytest.mark.parametrize(
        "change", [{"width": 8}, {"frames": 0}, {"darkness": 1.5}, {"rate_hz": 0.0}, {"seed": -1}, {"speed": "fast"}]
    )
    def test_a_parameter_out_of_range_is_rejected_by_name(self, change: dict[str, object]) -> None:
        (name,) = change
        with pytest.raises(ConfigError, match=name):
            NightDrive(replace(SMALL, **change))  # type: ignore[arg-type]

    def test_a_drive_too_long_for_the_memory_is_rejected(self) -> None:
        with pytest.raises(ConfigError, match=r"at most 2000 m .* got 80000 m"):
            NightDrive(replace(SMALL, frames=100_000))

    def test_a_frame_index_out_of_range_is_rejected(self, drive: NightDrive) -> None:
        assert len(drive) == 60
        for index in (-1, 60):
            with pytest.raises(ConfigError, match=r"in \[0, 59\]"):
                drive.frame(index)

    def test_noise_tiles_seamlessly(self) -> None:
        noise = value_noise(np.random.default_rng(1), 64, 64, (4, 4), 3)
        inside = np.abs(np.diff(noise, axis=0)).max()
        assert np.abs(noise[0] - noise[-1]).max() <= 1.5 * inside
        assert np.abs(noise).max() <= 1.0


class TestVerb:
    ARGUMENTS = ("--frames", "3", "--width", "64", "--height", "48")

    def _run(self, *arguments: str) -> int:
        parser = argparse.ArgumentParser()
        verb.configure(parser)
        return verb.run(parser.parse_args([*arguments]))

    def test_the_recording_and_the_ground_truth_are_written(self, tmp_path: Path) -> None:
        out = tmp_path / "deep" / "out"
        assert self._run("-o", str(out), *self.ARGUMENTS, "--images", "--clean") == 0
        expected = list(NightDrive(DriveSceneConfig(frames=3, width=64, height=48)))
        truth = json.loads((out / "truth" / "boxes.json").read_text())
        assert truth["labels"]["7"] == "person"
        assert truth["config"]["width"] == 64
        with BagReader(out / "bag") as bag:
            visible, infrared = list(bag.images("/visible/image")), list(bag.images("/infrared/image"))
        assert (visible[0].frame_id, visible[0].encoding) == ("visible_camera", "rgb8")
        assert (infrared[0].frame_id, infrared[0].encoding) == ("infrared_camera", "mono8")
        for index, frame in enumerate(expected):
            stem = f"{index:06d}.png"
            np.testing.assert_array_equal(visible[index].data.reshape(48, 64, 3), frame.visible)
            np.testing.assert_array_equal(infrared[index].data.reshape(48, 64), frame.infrared)
            np.testing.assert_array_equal(read_infrared(out / "ir" / stem), frame.infrared)
            np.testing.assert_array_equal(read_infrared(out / "truth" / "labels" / stem), frame.labels)
            np.testing.assert_array_equal(read_infrared(out / "truth" / "instances" / stem), frame.instances)
            assert (out / "vis" / stem).is_file() and (out / "truth" / "clean" / stem).is_file()
            entry = truth["frames"][index]
            assert (entry["visible_ns"], entry["infrared_ns"]) == (visible[index].stamp_ns, infrared[index].stamp_ns)
            assert [box["instance"] for box in entry["boxes"]] == [box.instance for box in frame.boxes]

    def test_the_stamps_of_a_pair_differ_by_a_few_milliseconds(self, tmp_path: Path) -> None:
        self._run("-o", str(tmp_path / "out"), *self.ARGUMENTS)
        with BagReader(tmp_path / "out" / "bag") as bag:
            visible = [image.stamp_ns for image in bag.images("/visible/image")]
            infrared = [image.stamp_ns for image in bag.images("/infrared/image")]
        gaps = np.subtract(infrared, visible) / 1e6
        assert (gaps > 0).all() and (gaps < 8.5).all()
        assert gaps.std() > 0.05
        assert not (tmp_path / "out" / "vis").exists()

    def test_an_existing_recording_is_replaced_only_on_request(self, tmp_path: Path) -> None:
        out = str(tmp_path / "out")
        self._run("-o", out, *self.ARGUMENTS)
        with pytest.raises(BagError, match="must be a new folder"):
            self._run("-o", out, *self.ARGUMENTS)
        assert self._run("-o", out, *self.ARGUMENTS, "--overwrite", "--storage", "sqlite3") == 0
        assert list((tmp_path / "out" / "bag").glob("*.db3"))

    def test_bad_arguments_are_rejected(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="width"):
            self._run("-o", str(tmp_path / "out"), "--width", "3")
        (tmp_path / "file").write_text("")
        with pytest.raises(FileError, match="a folder, got a file"):
            self._run("-o", str(tmp_path / "file"))
