"""``textdifuse train``: packing images, the run file, the plan of a run, ablation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_training
import yaml
from conftest import TINY
from tiny_images import street

from textdifuse_ros.cli.main import main
from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.data.pack import ImagePack, write_pack
from textdifuse_ros.errors import ConfigError, FileError, ImageError
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.fusion.weights import add_part, load_networks
from textdifuse_ros.image.files import write_png
from textdifuse_ros.train.run_file import RunFile, load_run_file
from textdifuse_ros.train.state import WEIGHTS

SHORT = {"warm_up": 1, "workers": 0, "sheet_every": 0, "precision": "float32"}


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for stage, shapes in tiny_training.shapes().items():
        monkeypatch.setattr(stage, "shapes", shapes)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vis/ and ir/ with three pairs, one of 16 bits; more/ with two visible images, one too large."""
    root = tmp_path_factory.mktemp("images")
    for number in range(3):
        item = street(number, 60, 80)
        assert item.infrared is not None
        infrared = item.infrared if number else item.infrared.astype(np.uint16) * 9
        write_png(root / "vis" / f"{number}.png", item.visible)
        write_png(root / "ir" / f"{number}.png", infrared)
    write_png(root / "more" / "a.png", street(5, 50, 70).visible)
    write_png(root / "more" / "b.png", street(6, 700, 1200).visible)
    return root


def run(*words: object) -> int:
    return main([str(word) for word in words])


def write_yaml(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_custom_images_are_packed(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = tmp_path / "own.pack"
    words = ["--pairs", images / "vis", images / "ir", "--clean", images / "more", "-o", pack]
    assert run("train", "pack", *words) == 0
    assert "packed 5 images, 3 of them pairs" in capsys.readouterr().out
    opened = ImagePack(pack)
    by_name = {entry.name: entry for entry in opened.entries}
    assert set(by_name) == {"pairs/0", "pairs/1", "pairs/2", "clean/more/a", "clean/more/b"}
    item = street(1, 60, 80)
    assert np.array_equal(opened.visible(by_name["pairs/1"]), item.visible)
    assert np.array_equal(opened.infrared(by_name["pairs/1"]), item.infrared)
    assert opened.infrared(by_name["pairs/0"]).max() == 255  # 16-bit images are stretched as by the fuser
    assert (by_name["clean/more/b"].height, by_name["clean/more/b"].width) == (560, 960)


def test_medical_pairs_are_packed_from_the_training_parts(tmp_path: Path) -> None:
    for kind, part, stem in (("ct-mri", "train", "1"), ("pet-mri", "train", "2"), ("pet-mri", "test", "3")):
        item = street(int(stem), 50, 50)
        assert item.infrared is not None
        write_png(tmp_path / kind / part / "a" / f"{stem}.png", item.visible)
        write_png(tmp_path / kind / part / "b" / f"{stem}.png", item.infrared)
    assert run("train", "pack", "--harvard", tmp_path, "-o", tmp_path / "medical.pack") == 0
    opened = ImagePack(tmp_path / "medical.pack")
    assert {entry.name for entry in opened.entries} == {"ct-mri/1", "pet-mri/2"}
    (ct,) = (entry for entry in opened.entries if entry.name == "ct-mri/1")
    assert np.array_equal(opened.infrared(ct), street(1, 50, 50).infrared)  # b, the MRI, takes the place of infrared


def test_images_that_do_not_match_are_refused(images: Path, tmp_path: Path) -> None:
    from textdifuse_ros.data.pairs import Source, harvard_sources, pair_sources

    write_png(tmp_path / "ir" / "0.png", np.zeros((60, 80), np.uint8))
    with pytest.raises(FileError, match="2 missing: 1, 2; visible images without a counterpart"):
        pair_sources(images / "vis", tmp_path / "ir")
    write_png(tmp_path / "small" / "0.png", np.zeros((30, 80), np.uint8))
    with pytest.raises(ImageError, match="80 x 60 pixels"):
        Source("0", images / "vis" / "0.png", tmp_path / "small" / "0.png").load()
    with pytest.raises(FileError, match="ct-mri"):
        harvard_sources(tmp_path)
    assert run("train", "pack", "-o", tmp_path / "none.pack") == 2
    assert not (tmp_path / "none.pack").exists()


def test_one_run_file_trains_a_model_from_images_to_a_fused_pair(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_yaml(
        tmp_path / "run.yaml",
        {
            "data": {
                "pairs": [{"visible": str(images / "vis"), "infrared": str(images / "ir")}],
                "clean": [str(images / "more")],
            },
            "pack": "own.pack",
            "runs": "runs",
            "device": "cpu",
            "networks": {name: list(v) if isinstance(v, tuple) else v for name, v in TINY.items()},
            **SHORT,
            "steps": 2,
            "learning_rate": "1e-3",
            "chroma": {"steps": 3},
            "control": {"start": "joined.safetensors", "degradations": "none"},
            "joint": {"start": f"runs/control/{WEIGHTS}"},
        },
    )
    assert run("train", "pack", "--config", file) == 0
    assert run("train", "luma", "--config", file) == 0
    assert run("train", "chroma", "--config", file) == 0
    join = ["train", "join", f"runs/luma/{WEIGHTS}", f"runs/chroma/{WEIGHTS}", "-o", "joined.safetensors"]
    assert run(*join) == 0
    assert run("train", "control", "--config", file) == 0
    assert run("train", "joint", "--config", file, "--steps", 1) == 0
    _, checkpoint = load_networks(tmp_path / "runs" / "joint" / WEIGHTS)
    history = checkpoint.provenance["history"]
    report = [(stage["stage"], stage["steps"], stage["degradations"], stage["learning_rate"]) for stage in history]
    assert report == [
        ("luma", 2, "road", 1e-3),
        ("chroma", 3, "road", 1e-3),
        ("control", 2, "none", 1e-3),
        ("joint", 1, "road", 1e-3),  # the flag overrides the file
    ]
    assert checkpoint.config["luma_widths"] == list(TINY["luma_widths"])
    fuser = Fuser.from_config(FuserConfig(model=str(tmp_path / "runs" / "joint" / WEIGHTS), device="cpu", steps=1))
    item = street(0, 60, 80)
    assert item.infrared is not None
    assert fuser.fuse(item.visible, item.infrared).image.shape == (60, 80, 3)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"stepz": 3}, "a known key|'stepz'"),
        ({"steps": "many"}, "steps must be an integer"),
        ({"joint": {"steps": 0}}, "steps must be an integer in"),
        ({"luma": [1]}, "luma must be a mapping"),
        ({"luma": {"stage": "chroma"}}, "another than stage"),
        ({"networks": {"luma_width": [8, 8, 8]}}, "did you mean luma_widths"),
        ({"data": {"pair": []}}, "a key in data"),
        ({"data": {"pairs": [["a", "b"]]}}, "a list of {visible: DIR, infrared: DIR}"),
        ({"data": {"clean": "folder"}}, "data: clean must be a list"),
        ({"pack": 3}, "pack must be a path"),
    ],
)
def test_a_wrong_run_file_is_refused(content: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=match):
        load_run_file(write_yaml(tmp_path / "run.yaml", content))


def test_flags_override_the_stage_which_overrides_the_common_parameters() -> None:
    file = RunFile(common={"steps": 5, "seed": 5, "warm_up": 5}, stages={"luma": {"steps": 6, "seed": 6}})
    luma, chroma = file.config("luma", {"seed": 7}), file.config("chroma", {})
    assert (luma.stage, luma.steps, luma.seed, luma.warm_up) == ("luma", 6, 7, 5)
    assert (chroma.stage, chroma.steps, chroma.seed) == ("chroma", 5, 5)


def test_missing_pack_and_run_folder_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "luma", "--run", tmp_path) == 2
    assert "--pack must be given, or pack in --config" in capsys.readouterr().err
    assert run("train", "luma", "--pack", tmp_path / "x.pack") == 2
    assert "--run must be given, or runs in --config" in capsys.readouterr().err


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = tmp_path / "p.pack"
    write_pack(pack, [street(0), street(1), street(2)])
    before = sorted(tmp_path.rglob("*"))
    flags = [x for name, value in SHORT.items() for x in (f"--{name.replace('_', '-')}", value)]
    words = ["train", "joint", "--pack", pack, "--run", tmp_path / "run", "--start", tiny_checkpoint, "--device", "cpu"]
    assert run(*words, *flags, "--steps", 500, "--dry-run") == 0
    assert sorted(tmp_path.rglob("*")) == before
    out = capsys.readouterr().out
    plan = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}
    learning = sum(p.numel() for p in add_part(load_networks(tiny_checkpoint)[0], "joint").luma.parameters())
    assert plan["stage"].startswith("joint, objective few_step, from weights sha256 ")
    assert plan["images"].startswith(f"3 in {pack}, 3 of them pairs; degradations: road")
    assert plan["batches"] == "in turn 3 visible + 3 infrared (pairs) of 32 px, 4 visible of 32 px"
    assert plan["learning"].startswith(f"{learning:,} of ")
    assert plan["steps"] == "500"
    assert "MB at most of this process" in plan["memory"]
    assert "for 500 steps, from a trial of 2" in plan["time"]
    assert plan["output"].startswith(f"{tmp_path / 'run'}: state.pt and weights.safetensors every 500 steps")


def test_ablation_trains_and_evaluates_all_variants_alike(
    images: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from textdifuse_ros.train.ablation import VARIANTS

    pack, out = tmp_path / "p.pack", tmp_path / "out"
    write_pack(pack, [street(0), street(1), street(2)])
    flags = [x for name, value in SHORT.items() for x in (f"--{name.replace('_', '-')}", value)]
    words = ["train", "ablate", "--pack", pack, "--start", tiny_checkpoint, "-o", out, "--device", "cpu", "--jobs", 1]
    measured = ["--visible", images / "vis", "--infrared", images / "ir", "--limit", 1]
    assert run(*words, *measured, *flags, "--steps", 3, "--learning-rate", 0.003) == 0
    content = json.loads((out / "ablation.json").read_text())
    (name,) = content["sets"]
    rows = content["sets"][name]["rows"]
    assert set(VARIANTS) < set(rows) and "max" in rows  # and the controls beside them
    figures = {variant: rows[variant]["AG"]["mean"] for variant in VARIANTS}
    assert len(set(figures.values())) == len(VARIANTS)  # no two variants fuse the same images
    table = (out / "ablation.md").read_text()
    assert all(f"| {variant} " in table and f"- `{variant}`: " in table for variant in VARIANTS)
    assert capsys.readouterr().out == table

    before = load_networks(tiny_checkpoint)[1].tensors
    for variant in VARIANTS:
        after = load_networks(out / variant / WEIGHTS)[1].tensors
        changed = {name for name in before if not before[name].equal(after[name])}
        assert any(name.startswith("luma.decoder") for name in changed)
        assert any(name.startswith("luma.control") for name in changed) == (not VARIANTS[variant].rule)
        assert not any(name.startswith(("luma.encoder", "chroma")) for name in changed)


def test_ablation_requires_pairs_and_known_variants(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "ablate", "--pack", tmp_path / "p", "--start", tiny_checkpoint, "-o", tmp_path / "out"]
    assert run(*words) == 2
    assert "the pairs to evaluate on must be" in capsys.readouterr().err
    assert run(*words, "--variant", "half") == 2
    assert "--variant must be one of full, rule_max" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["control", "joint", "modulation"])
def test_a_stage_that_trains_a_part_requires_start_weights(
    stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = tmp_path / "p.pack"
    write_pack(pack, [street(0)])
    assert run("train", stage, "--pack", pack, "--run", tmp_path / "run", "--device", "cpu") == 2
    assert f"--start of {stage} must be the weights of the previous stage" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_wrong_pack_and_an_unwritable_path_are_one_line_errors(
    images: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = tmp_path / "p.pack"
    write_pack(pack, [street(0)])
    folder = tmp_path / "run"
    assert run("train", "localizer", "--pack", pack, "--run", folder, "--device", "cpu") == 2
    assert "must be the index of a label pack, got something else" in capsys.readouterr().err
    (tmp_path / "p.pack.json").write_text("{}")
    assert run("train", "luma", "--pack", pack, "--run", folder, "--device", "cpu") == 2
    assert "must be the index of an image pack, got something else ('bytes')" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    words = ["--pairs", images / "vis", images / "ir", "-o", tmp_path / "file" / "own.pack"]
    assert run("train", "pack", *words) == 2
    assert "file must be a path that can be read or written, got" in capsys.readouterr().err
    assert run("train", "localizer", "--pack", pack, "--run", folder, "--crop", 100) == 2
    assert "crop must be a multiple of 32 [px], got 100" in capsys.readouterr().err
