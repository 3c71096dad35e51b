"""``textdifuse calibrate``: the homography from pairs that share edges but not brightness."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from textdifuse_ros.bags.writer import BagWriter
from textdifuse_ros.cli.main import main
from textdifuse_ros.config.files import load_config
from textdifuse_ros.config.nodes import FusionNodeConfig
from textdifuse_ros.errors import CalibrationError
from textdifuse_ros.evaluate.registration import parse_displacement
from textdifuse_ros.image.calibration import estimate_homography
from textdifuse_ros.image.files import read_visible, write_png

SIZE = (240, 180)


def scene(seed: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Create shapes with unrelated grey levels in the two images; some are missing in one of them."""
    rng = np.random.default_rng(seed)
    visible, infrared = (np.full((size[1], size[0]), rng.integers(60, 190), np.uint8) for _ in range(2))
    for _ in range(26):
        center = rng.uniform((0, 0), size)
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
        radius = rng.uniform(8, 38)
        corners = (center + radius * np.column_stack((np.cos(angles), np.sin(angles)))).astype(np.int32)
        in_visible, in_infrared = rng.uniform(size=2) < 0.85
        if in_visible:
            cv2.fillPoly(visible, [corners], int(rng.integers(0, 256)))
        if in_infrared:
            cv2.fillPoly(infrared, [corners], int(rng.integers(0, 256)))
    blurred = cv2.GaussianBlur(infrared, (0, 0), 1.0)
    noise = rng.normal(0, 4, (2, size[1], size[0]))
    return tuple(np.clip(p + n, 0, 255).astype(np.uint8) for p, n in zip((visible, blurred), noise, strict=True))


def displaced(infrared: np.ndarray, homography: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Render the view of a displaced infrared camera; ``homography`` maps its pixels to the aligned ones."""
    back = np.linalg.inv(homography)
    shrunk = cv2.GaussianBlur(infrared, (0, 0), 0.6) if size[0] < infrared.shape[1] else infrared
    return cv2.warpPerspective(shrunk, back, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def worst_error(found: np.ndarray, true: np.ndarray, size: tuple[int, int]) -> float:
    corners = np.array([[x, y, 1.0] for x in (0, size[0] - 1) for y in (0, size[1] - 1)]).T
    mapped, expected = found @ corners, true @ corners
    return float(np.hypot(*(mapped[:2] / mapped[2] - expected[:2] / expected[2])).max())


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    return [scene(seed) for seed in range(8)]


@pytest.mark.parametrize(
    ("displacement", "model", "tolerance"),
    [("8,0", "translation", 0.3), ("-4,7", "translation", 0.3), ("5,-3,1.5,1.03", "similarity", 0.8)],
)
def test_a_displacement_is_estimated_by_the_simplest_transform(scenes, displacement, model, tolerance):
    true = parse_displacement(displacement, SIZE)
    found = estimate_homography([(visible, displaced(infrared, true, SIZE)) for visible, infrared in scenes])
    assert found.model == model
    assert worst_error(found.homography, true, SIZE) < tolerance
    assert found.scores.mean() > 2 * found.scores_before.mean() and found.spread < 0.7


def test_a_perspective_is_estimated_by_a_homography(scenes):
    true = np.array([[1.03, 0.02, -6.0], [-0.015, 0.98, 4.0], [2.4e-4, -1.8e-4, 1.0]])
    found = estimate_homography([(visible, displaced(infrared, true, SIZE)) for visible, infrared in scenes])
    assert found.model == "homography" and worst_error(found.homography, true, SIZE) < 1.5


def test_cameras_of_different_size_and_field_of_view_are_aligned(scenes):
    true = np.array([[1.6, 0.0, 14.0], [0.0, 1.6, 22.0], [0.0, 0.0, 1.0]])
    found = estimate_homography([(visible, displaced(infrared, true, (128, 96))) for visible, infrared in scenes])
    assert worst_error(found.homography, true, (128, 96)) < 1.0


def test_a_blank_image_among_the_pairs_is_ignored(scenes):
    true = parse_displacement("-4,7", SIZE)
    pairs = [(visible, displaced(infrared, true, SIZE)) for visible, infrared in scenes[:6]]
    pairs.insert(2, (pairs[0][0], np.full(SIZE[::-1], 90, np.uint8)))
    found = estimate_homography(pairs)
    assert worst_error(found.homography, true, SIZE) < 0.4 and np.isnan(found.scores[2]) and found.spread < 1
    with pytest.raises(CalibrationError, match="images without common edges"):
        estimate_homography([pairs[2]])


@pytest.fixture
def folders(tmp_path, scenes) -> tuple[Path, Path]:
    true = parse_displacement("6,5", SIZE)
    for number, (visible, infrared) in enumerate(scenes):
        write_png(tmp_path / "vis" / f"{number}.png", np.repeat(visible[..., None], 3, 2))
        write_png(tmp_path / "ir" / f"{number}.png", displaced(infrared, true, SIZE))
    return tmp_path / "vis", tmp_path / "ir"


def test_folders_give_parameters_overlays_and_figures(folders, tmp_path, capsys):
    out, sheet, figures = tmp_path / "reg.yaml", tmp_path / "sheet.png", tmp_path / "figures.json"
    paths = [str(path) for path in folders]
    assert main(["calibrate", *paths, "-o", str(out), "--sheet", str(sheet), "--json", str(figures)]) == 0
    config = load_config(FusionNodeConfig, out)
    assert config.registration == "homography"
    found = np.reshape(config.infrared_homography, (3, 3))
    assert worst_error(found, parse_displacement("6,5", SIZE), SIZE) < 0.4
    assert config.homography_sizes == (*SIZE, *SIZE)
    values = yaml.safe_load(out.read_text())["/**"]["ros__parameters"]["infrared_homography"]
    assert all(isinstance(value, float) for value in values), "rcl rejects a list of integers and floats"
    report = json.loads(figures.read_text())
    assert report["score"] > 2 * report["score_before"] and report["pairs"] == 8 and report["spread_px"] < 1
    assert read_visible(sheet).shape[1] > 4 * 400
    assert "translation from 8 pairs" in capsys.readouterr().out


def test_pairs_of_several_sizes_give_a_homography_for_any_size(folders, tmp_path):
    for folder in folders:
        image = read_visible(folder / "0.png")
        write_png(folder / "0.png", np.ascontiguousarray(image[:160, :220]))
    assert main(["calibrate", *map(str, folders), "-o", str(tmp_path / "reg.yaml")]) == 0
    assert load_config(FusionNodeConfig, tmp_path / "reg.yaml").homography_sizes == (0, 0, 0, 0)


def test_a_recording_gives_the_same_parameters(folders, tmp_path):
    with BagWriter(tmp_path / "drive") as bag:
        for number in range(8):
            visible, infrared = (read_visible(folder / f"{number}.png") for folder in folders)
            stamp = 10**9 + number * 10**8
            bag.write_image("/color/image_raw", stamp, "color", visible)
            bag.write_image("/thermal/image_raw", stamp + 4_000_000, "thermal", infrared[..., 0].copy())
    one, other = tmp_path / "files.yaml", tmp_path / "bag.yaml"
    assert main(["calibrate", *map(str, folders), "-o", str(one)]) == 0
    assert main(["calibrate", str(tmp_path / "drive"), "-o", str(other)]) == 0
    assert one.read_text() == other.read_text()


def test_unrelated_images_are_reported(tmp_path, capsys):
    for number in range(6):
        write_png(tmp_path / "vis" / f"{number}.png", np.repeat(scene(number)[0][..., None], 3, 2))
        write_png(tmp_path / "ir" / f"{number}.png", scene(50 + number)[1])
    status = main(["calibrate", str(tmp_path / "vis"), str(tmp_path / "ir"), "-o", str(tmp_path / "out.yaml")])
    assert status == 1 and "the pairs hardly agree" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["one", "three", "one that is there twelve times"])
def test_too_few_pairs_are_reported(folders, tmp_path, capsys, kind):
    some = tmp_path / "some"
    for number in range(12 if "twelve" in kind else 1 if kind == "one" else 3):
        for folder in folders:
            source = folder / f"{0 if kind != 'three' else number}.png"
            (some / folder.name).mkdir(parents=True, exist_ok=True)
            (some / folder.name / f"{number}.png").write_bytes(source.read_bytes())
    report = tmp_path / "figures.json"
    arguments = ["-o", str(tmp_path / "out.yaml"), "--json", str(report)]
    assert main(["calibrate", str(some / "vis"), str(some / "ir"), *arguments]) == 1
    figures = json.loads(report.read_text())
    assert figures["pairs"] == (3 if kind == "three" else 1) and figures["transform"] in ("translation", "similarity")
    assert (figures["spread_px"] is None) == (kind != "three")
    assert "different pairs are too few to verify the result" in capsys.readouterr().err


def test_invalid_options_give_one_line_and_status_2(folders, tmp_path, capsys):
    vis, ir = map(str, folders)
    for arguments, message in (
        ([vis, ir], "--output must be given"),
        ([vis, "-o", str(tmp_path / "x.yaml")], "the infrared images must be given"),
        ([vis, ir, "--check", "8"], "--check must be DX,DY"),
        ([vis, ir, "-o", str(tmp_path / "x.yaml"), "--visible-calibration", "a.yaml"], "given for both cameras"),
        ([vis, ir, "-o", str(tmp_path / "x.yaml"), "--model", "drive"], "--model must be given with --check only"),
        ([vis, ir, "-o", str(tmp_path / "x.yaml"), "--check", "8,0"], "--output must be left out with --check"),
    ):
        assert main(["calibrate", *arguments]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1


def test_the_check_measures_what_registration_recovers(folders, tmp_path, tiny_checkpoint, scenes, capsys):
    for number, (_, infrared) in enumerate(scenes):
        write_png(folders[1] / f"{number}.png", infrared)
    report = tmp_path / "check.json"
    arguments = [*map(str, folders), "--check=8,0", "--limit", "4", "--steps", "1", "--model", str(tiny_checkpoint)]
    assert main(["calibrate", *arguments, "--json", str(report)]) == 0
    (row,) = json.loads(report.read_text())["displacements"]
    assert row["error_px"] < 0.5 and set(row["qabf"]) == {"aligned", "moved", "registered"}
    assert row["loss"] == pytest.approx(1 - row["qabf"]["registered"] / row["qabf"]["aligned"], abs=1e-4)
    assert "| 8,0 | translation |" in capsys.readouterr().out


@pytest.mark.slow
def test_real_pairs_displaced_by_six_and_five_pixels_are_registered_within_half_a_pixel(data_folder):
    folder = data_folder / "roadscene" / "test"
    names = sorted(path.name for path in (folder / "vis").iterdir())[::4]
    true = np.array([[1.0, 0, 6], [0, 1, 5], [0, 0, 1]])
    pairs = []
    for name in names:
        visible, infrared = (cv2.imread(str(folder / part / name), cv2.IMREAD_GRAYSCALE) for part in ("vis", "ir"))
        pairs.append((visible, displaced(infrared, true, infrared.shape[::-1])))
    assert worst_error(estimate_homography(pairs, "translation").homography, true, (400, 300)) < 0.5
