"""The family ``reference``: the authors' published networks, their sampling, and their files."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from reference_weights import TINY, random_states, write_files

from textdifuse_ros.cli.main import main
from textdifuse_ros.config.base import FuserConfig
from textdifuse_ros.diffusion import samplers
from textdifuse_ros.diffusion.denoiser import Denoised
from textdifuse_ros.diffusion.posterior import q_posterior
from textdifuse_ros.diffusion.process import reverse
from textdifuse_ros.diffusion.respacing import respace, space_with_ends
from textdifuse_ros.diffusion.samplers import PosteriorMean, SamplerState
from textdifuse_ros.diffusion.schedule import cosine
from textdifuse_ros.errors import CheckpointError, ImageError
from textdifuse_ros.fusion import reference
from textdifuse_ros.fusion.cost import count_flops, count_parameters
from textdifuse_ros.fusion.emphasis import Emphasis
from textdifuse_ros.fusion.fuser import Fuser
from textdifuse_ros.fusion.reference import ReferenceDenoiser, ReferenceFusion, fused_size
from textdifuse_ros.fusion.weights import load_networks, save_reference
from textdifuse_ros.networks.reference import control, networks
from textdifuse_ros.networks.reference.networks import ReferenceConfig, ReferenceNetworks
from textdifuse_ros.networks.reference.released import read_released, released_shapes, rename

THEIRS = ["--steps", "25", "--sampler", "posterior_mean"]


def tiny_config(task: str = "infrared_visible") -> ReferenceConfig:
    return ReferenceConfig(widths=TINY, blocks=1, task=task)


def build(config: ReferenceConfig) -> ReferenceNetworks:
    with torch.device("meta"):
        built = ReferenceNetworks(config)
    built.load_state_dict(rename(random_states(config)), assign=True, strict=True)
    return built.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "tiny.safetensors"
    save_reference(path, tiny_config(), rename(random_states(tiny_config())), {})
    return path


@pytest.fixture(scope="module")
def fuser(model: Path) -> Iterator[Fuser]:
    fuser = Fuser.from_config(config_of(model))
    yield fuser
    fuser.close()


def config_of(model: Path, precision: str = "float32") -> FuserConfig:
    sampler = "posterior_mean"
    return FuserConfig(model=str(model), device="cpu", precision=precision, steps=3, sampler=sampler)


def make_pair(height: int = 48, width: int = 64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    visible = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 3)
    return visible, cv2.GaussianBlur(rng.integers(0, 256, (height, width), np.uint8), (0, 0), 3)


class TestTheirNetworks:
    def test_one_call_equals_the_authors_program(self) -> None:
        """Their program gave these numbers for the same random weights, sources and noise.

        Stage 1 of each source, their Get_feature_all, FCM, Spit_feature_all and stage 2 at t = 500, and ``mean`` of
        their p_mean_variance at step 12 of 25; every ninth row and eleventh column. At 96x128, all 25 steps, the same
        comparison gave at most the differences stated in docs/reference.md.
        """
        eps = [0.09695, 0.3224, 0.09901, 0.50262, -0.06763, -0.14173, -0.01501, 0.05007, -0.32388, 0.43387, -0.04078,
               0.07529]  # fmt: skip
        v = [0.04736, 0.48433, 0.77759, 0.51361, 0.14477, 0.94993, -0.47815, 0.80464, 0.6939, 0.49649, 0.94865, 0.81536]
        mean = [-1.09403, 0.27152, -0.38063, 0.50677, 1.23232, -0.09934, -0.88729, -2.4098, 0.27212, 2.72222, -0.38643,
                -0.42503]  # fmt: skip
        built = build(ReferenceConfig())
        visible = torch.linspace(-1, 1, 32 * 32).reshape(1, 1, 32, 32)
        z = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        timestep = torch.tensor([500])
        with torch.inference_mode():
            volumes = built.encode_pair(z, visible, (visible * 40).cos(), timestep)
            ours = built.decoder(built.fuse_features(volumes), timestep)
        for expected, output in zip((eps, v), ours, strict=True):
            assert output[0, 0, ::9, ::11].flatten().tolist() == pytest.approx(expected, abs=3e-5)
        schedule = respace(cosine(1000), space_with_ends(1000, 25))
        assert schedule.timesteps[12] == 500
        x0 = (z - (1 - schedule.abar[12]) ** 0.5 * ours[0]) / schedule.abar[12] ** 0.5
        stepped = PosteriorMean().step(SamplerState(z, 12), Denoised(x0.clamp(-1, 1), z), schedule, None)
        assert stepped.z[0, 0, ::9, ::11].flatten().tolist() == pytest.approx(mean, abs=1e-4)

    def test_a_volume_holds_every_feature(self) -> None:
        built = build(tiny_config())
        z = torch.randn(2, 1, 32, 48, generator=torch.Generator().manual_seed(1))
        features = built.encoder(z, z, torch.tensor([3]))
        joined = built.volume.join(features, features)
        assert joined.shape == (2, 2 * built.volume.channels, 32, 48)
        for half in joined.chunk(2, 1):
            assert all(torch.equal(a, b) for a, b in zip(built.volume.split(half), features, strict=True))
        as_last = tuple(feature.to(memory_format=torch.channels_last) for feature in features)
        assert torch.equal(built.volume.join(as_last, as_last), joined), "the memory format does not matter"

    def test_bands_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        convolution = torch.nn.Conv2d(3, 5, 3, padding=1)
        x = torch.randn(1, 3, 41, 10)
        with torch.inference_mode():
            whole = control.conv_in_bands(convolution, x)
            monkeypatch.setattr(control, "BAND_PIXELS", 70)
            assert torch.allclose(control.conv_in_bands(convolution, x), whole, atol=1e-6)

    def test_size_and_cost_are_those_of_the_authors_without_the_unused_branch(self) -> None:
        with torch.device("meta"):
            built = ReferenceNetworks(ReferenceConfig())
        assert count_parameters(built)["total"] == pytest.approx(114.09e6, rel=1e-4)
        assert count_flops(built, 480, 640)["luma_step"] == pytest.approx(14_890, rel=1e-3)


class TestTheirSampling:
    def test_timesteps(self) -> None:
        assert space_with_ends(1000, 25) == (
            0, 42, 83, 125, 166, 208, 250, 291, 333, 375, 416, 458, 500, 541, 583, 624, 666, 708, 749, 791, 832, 874,
            916, 957, 999,
        )  # fmt: skip
        assert space_with_ends(1000, 2) == (0, 999) and space_with_ends(1000, 1) == (999,)
        assert space_with_ends(1000, 21)[10:12] == (499, 549), "iDDPM's rounding of summed strides"
        assert space_with_ends(10, 10) == tuple(range(10))

    def test_a_step_is_the_mean_of_the_posterior_and_draws_no_noise(self) -> None:
        schedule = respace(cosine(1000), space_with_ends(1000, 25))
        z, x0 = torch.randn(2, 1, 1, 4, 4, generator=torch.Generator().manual_seed(2)).unbind()
        denoised = Denoised(x0, z, variance=torch.ones_like(z))
        after = PosteriorMean().step(SamplerState(z, 7), denoised, schedule, None)
        assert torch.equal(after.z, q_posterior(x0, z, 7, schedule).mean) and after.index == 6
        assert torch.equal(PosteriorMean().step(SamplerState(z, 0), denoised, schedule, None).z, x0)

    def test_x0_is_clamped_in_each_step(self) -> None:
        built = build(tiny_config())
        z = 3 * torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(3))
        steps = reverse(
            ReferenceDenoiser(built, (torch.zeros_like(z), torch.zeros_like(z)), cosine(1000)),
            z,
            respace(cosine(1000), space_with_ends(1000, 25)),
            samplers.by_name("posterior_mean"),
        )
        for step in islice(steps, 3):
            assert step.x0.abs().max() <= 1


class TestTheirImages:
    @pytest.mark.parametrize(
        ("size", "fused"),
        [
            ((640, 480), (640, 480)),
            ((100, 70), (96, 64)),
            ((640, 640), (640, 640)),
            ((1920, 1080), (1136, 640)),
            ((2600, 1300), (1280, 640)),
        ],
    )
    def test_the_size_of_fusing_is_theirs(self, size: tuple[int, int], fused: tuple[int, int]) -> None:
        assert fused_size(*size) == fused

    def test_chroma_is_pasted_in_eight_bits(self, fuser: Fuser) -> None:
        visible, infrared = make_pair()
        fused = fuser.fuse(visible, infrared).image
        _, cb, cr = np.moveaxis(np.array(Image.fromarray(visible).convert("YCbCr")), 2, 0)
        y = np.array(Image.fromarray(fused).convert("YCbCr"))[..., 0]
        inside = (fused.min(2) > 0) & (fused.max(2) < 255)
        found = np.array(Image.fromarray(fused).convert("YCbCr")).astype(int)[inside]
        assert inside.any() and y.shape == cb.shape
        assert abs(found[:, 1] - cb[inside]).max() <= 2 and abs(found[:, 2] - cr[inside]).max() <= 2

    def test_joining_is_that_of_opencv(self) -> None:
        luma = torch.linspace(-1, 1, 256).reshape(1, 1, 16, 16)
        chroma = np.dstack(np.meshgrid(np.arange(0, 256, 16, np.uint8), np.arange(0, 256, 16, np.uint8)))
        levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
        expected = cv2.cvtColor(np.dstack((levels, chroma[..., 1], chroma[..., 0])), cv2.COLOR_YCrCb2RGB)
        assert np.array_equal(ReferenceFusion(luma, chroma, (16, 16)).image().numpy(), expected)

    @pytest.mark.parametrize(("height", "width"), [(70, 100), (16, 31)])
    def test_the_image_has_the_size_of_the_pair(self, fuser: Fuser, height: int, width: int) -> None:
        visible, infrared = make_pair(height, width)
        fused = fuser.fuse(visible, infrared, steps=1).image
        assert fused.shape == visible.shape
        rows, columns = height // 16 * 16, width // 16 * 16
        cut = fuser.fuse(visible[:rows, :columns].copy(), infrared[:rows, :columns].copy(), steps=1).image
        assert np.array_equal(fused[:rows, :columns], cut), "what the program returns is there byte for byte"

    def test_a_large_pair_is_fused_smaller(self, fuser: Fuser, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reference, "LONGEST_SHORT_SIDE", 32)
        visible, infrared = make_pair(96, 130)  # halved once to 48x65, then 32x43, of which 32x32 are fused
        halved = Image.fromarray(visible).convert("YCbCr").resize((65, 48), Image.Resampling.BOX)
        theirs = np.array(halved.resize((43, 32), Image.Resampling.BICUBIC))[:, :32]
        fusion = reference.ReferencePipeline(
            build(tiny_config()), cosine(1000), 1, samplers.by_name("posterior_mean")
        ).run(torch.from_numpy(visible), torch.from_numpy(infrared[..., None]), torch.Generator().manual_seed(0))
        assert fusion.luma.shape == (1, 1, 32, 32) and np.array_equal(fusion.chroma, theirs[..., 1:])
        assert fuser.fuse(visible, infrared, steps=1).image.shape == visible.shape

    def test_medical_pairs_have_mri_first(self, tmp_path: Path, model: Path) -> None:
        path = tmp_path / "medical.safetensors"
        save_reference(path, tiny_config("medical"), rename(random_states(tiny_config())), {})
        ct, mri = make_pair()[1], make_pair(48, 64)[0][..., 0].copy()
        visible = Fuser.from_config(config_of(model)).fuse(np.dstack((mri, mri, mri)), ct)
        medical = Fuser.from_config(config_of(path)).fuse(np.dstack((ct, ct, ct)), mri)
        assert np.array_equal(visible.image, medical.image), "the sources change places"
        assert medical.provenance["task"] == "medical"

    def test_a_pair_is_fused_alike_whatever_came_before(self, fuser: Fuser) -> None:
        visible, infrared = make_pair()
        first = fuser.fuse(visible, infrared)
        fuser.fuse(*make_pair(32, 32))
        assert np.array_equal(fuser.fuse(visible, infrared).image, first.image)
        assert not np.array_equal(fuser.fuse(visible, infrared, seed=1).image, first.image)
        made_by = {"family": "reference", "task": "infrared_visible", "steps": 3, "sampler": "posterior_mean"}
        assert made_by.items() <= first.provenance.items()

    def test_bfloat16_and_sixteen_bits(self, fuser: Fuser, model: Path) -> None:
        visible, infrared = make_pair()
        expected = fuser.fuse(visible, infrared).image
        half = Fuser.from_config(config_of(model, "bfloat16")).fuse(visible, infrared).image
        assert abs(half.astype(int) - expected).mean() < 8
        deep = fuser.fuse(visible.astype(np.uint16) * 257, infrared).image
        assert np.array_equal(deep, expected)

    @pytest.mark.parametrize("sensor", ["visible", "infrared"])
    def test_one_source_is_restored_alone(self, fuser: Fuser, sensor: str) -> None:
        visible, infrared = make_pair()
        given = {"visible": visible} if sensor == "visible" else {"infrared": infrared}
        result = fuser.restore(**given)
        assert result.image.shape == visible.shape and result.provenance["sources"] == sensor
        assert (np.ptp(result.image, 2).max() == 0) == (sensor == "infrared")

    def test_refusals(self, fuser: Fuser) -> None:
        visible, infrared = make_pair()
        objects = Emphasis(np.ones(infrared.shape, np.float32), {})
        with pytest.raises(CheckpointError, match="must be one with a text re-modulation"):
            fuser.fuse(visible, infrared, emphasis=objects)
        with pytest.raises(ImageError, match="must be 16 pixels or more in both directions"):
            fuser.fuse(visible[:9].copy(), infrared[:9].copy())

    def test_warm_up_is_short(self, fuser: Fuser) -> None:
        fuser.warm_up(2000, 3000)


class TestTheirFiles:
    def test_names_are_the_published_ones(self) -> None:
        shapes = released_shapes(ReferenceConfig())
        assert {network: len(tensors) for network, tensors in shapes.items()} == {
            "encoder": 170,
            "decoder": 232,
            "control": 46,
        }
        for network, name, shape in (
            ("encoder", "input_blocks.0.0.weight", (128, 2, 3, 3)),
            ("encoder", "input_blocks.3.0.op.weight", (128, 128, 3, 3)),
            ("encoder", "input_blocks.10.1.qkv.weight", (1152, 384, 1)),
            ("encoder", "middle_block.2.out_layers.3.bias", (512,)),
            ("decoder", "output_blocks.2.2.conv.weight", (512, 512, 3, 3)),
            ("decoder", "out.2.weight", (2, 128, 3, 3)),
            ("control", "inBlock.weight", (544, 1088, 3, 3)),
            ("control", "CBMA4.channel_attention.shared_MLP.0.weight", (34, 544, 1, 1)),
            ("control", "outBlock3.2.bias", (544,)),
        ):
            assert shapes[network][name] == shape

    def test_convert_writes_a_model_that_fuses(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(networks, "ReferenceConfig", functools.partial(ReferenceConfig, widths=TINY, blocks=1))
        files = [str(path) for path in write_files(tmp_path, tiny_config()).values()]
        output = str(tmp_path / "reference.safetensors")
        assert main(["convert", *files, "-o", output]) == 0
        assert "family reference, infrared_visible" in capsys.readouterr().out
        visible, infrared = make_pair()
        Image.fromarray(visible).save(tmp_path / "v.png")
        Image.fromarray(infrared).save(tmp_path / "i.png")
        fuse = ["fuse", str(tmp_path / "v.png"), str(tmp_path / "i.png"), "--model", output, *THEIRS]
        assert main([*fuse, "--device", "cpu", "--precision", "float32", "-o", str(tmp_path / "out.png")]) == 0
        with Image.open(tmp_path / "out.png") as image:
            assert image.size == (64, 48) and "reference" in json.dumps(image.info)
        capsys.readouterr()
        assert main(["info", "--model", output, "--size", "64x48"]) == 0
        assert "diffusion_stage1.pth" in capsys.readouterr().out

    @pytest.mark.parametrize("network", ["encoder", "decoder", "control"])
    @pytest.mark.parametrize("fault", ["missing file", "another key", "missing key", "another shape", "no tensors"])
    def test_a_wrong_file_is_refused_by_name(self, tmp_path: Path, network: str, fault: str) -> None:
        files = write_files(tmp_path, tiny_config())
        state = torch.load(files[network], weights_only=True)
        name = next(iter(state))
        expected = {
            "missing file": r"no such file; fetch it .* README of github\.com/Leiii-Cao/Text-DiFuse",
            "another key": "got Unexpected key 'sigma'",
            "missing key": f"got Missing key '{name}'",
            "another shape": f"got size mismatch of '{name}'",
            "no tensors": "must be a PyTorch file of weights",
        }[fault]
        if fault == "missing file":
            files[network].unlink()
        elif fault == "no tensors":
            files[network].write_bytes(b"<html>quota exceeded</html>")
        else:
            if fault == "another key":
                state["sigma"] = torch.ones(1)
            elif fault == "missing key":
                del state[name]
            else:
                state[name] = state[name][:1]
            torch.save(state, files[network])
        with pytest.raises(CheckpointError, match=expected) as caught:
            read_released(files, tiny_config())
        assert f"the authors' {network}" in str(caught.value)

    def test_code_in_a_file_is_not_run(self, tmp_path: Path) -> None:
        files = write_files(tmp_path, tiny_config())
        torch.save({"x": functools.partial(print, "run")}, files["control"])
        with pytest.raises(CheckpointError, match="must be a PyTorch file of weights"):
            read_released(files, tiny_config())

    def test_training_does_not_start_from_them(self, model: Path) -> None:
        with pytest.raises(CheckpointError, match="must be of family drive, got 'reference'"):
            load_networks(model)
