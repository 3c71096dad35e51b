"""The drive networks: shapes, independence of the batch, and cost."""

from __future__ import annotations

import copy

import pytest
import torch

from textdifuse_ros.fusion.cost import count_flops, count_parameters, image_gflops
from textdifuse_ros.networks.cbam import CBAM
from textdifuse_ros.networks.drive import SENSOR_INDEX, DriveConfig, DriveNetworks
from textdifuse_ros.networks.fusion_control import LARGEST_WEIGHT, FusionControl
from textdifuse_ros.sensors import INFRARED, VISIBLE


@pytest.fixture(scope="module")
def networks() -> DriveNetworks:
    torch.manual_seed(0)
    return DriveNetworks(DriveConfig()).eval()


def test_the_default_networks_stay_within_the_cost_limits(networks: DriveNetworks) -> None:
    parameters = count_parameters(networks)
    assert parameters["luma"] <= 7e6
    assert parameters["chroma"] <= 1e6
    one = image_gflops(count_flops(networks, 480, 640), 1)
    assert one["luma"] <= 60
    assert one["chroma"] <= 10


def test_flops_agree_with_a_manual_count() -> None:
    """Every convolution of the luma networks, 2 * inputs * outputs * kernel * pixels, at 128 x 128; no variance."""
    config = DriveConfig()
    c = config.luma_widths
    pixels = [(128 // stride) ** 2 for stride in (4, 8, 16)]

    def cost(inputs: int, outputs: int, kernel: int, level: int) -> int:
        return 2 * inputs * outputs * kernel**2 * pixels[level]

    encoder = cost(16, c[0], 3, 0) + cost(c[0], c[1], 3, 1) + cost(c[1], c[2], 3, 2)
    encoder += sum(2 * count * cost(c[k], c[k], 3, k) for k, count in enumerate(config.luma_blocks))
    control, hidden = 0, config.control_width
    for k in range(3):
        control += cost(2 * c[k], hidden, 1, k) + cost(hidden, hidden, 3, k) + cost(2, 1, 7, k)
        control += cost(hidden, 2 * c[k], 1, k)
    decoder = cost(16, c[0], 3, 0) + cost(64, c[1], 1, 1) + cost(256, c[2], 1, 2)
    decoder += cost(c[2], 4 * c[1], 1, 2) + cost(c[1], 4 * c[0], 1, 1) + cost(c[0], 16, 3, 0)
    decoder += sum(2 * count * cost(c[k], c[k], 3, k) for k, count in enumerate(config.luma_decoder_blocks))

    networks = DriveNetworks(config)
    counts = count_flops(networks, 128, 128)
    # The linear layers of context, attention and time add a fraction of a percent.
    assert counts["luma_encode"] == pytest.approx((2 * encoder + control) / 1e9, rel=2e-3)
    assert counts["luma_step"] == pytest.approx(decoder / 1e9, rel=2e-3)
    assert not next(networks.parameters()).is_meta
    four, one = image_gflops(counts, 4), image_gflops(counts, 1)
    assert four["luma"] - one["luma"] == pytest.approx(3 * counts["luma_step"])


def test_decoder_returns_float32_images_of_the_right_shape(networks: DriveNetworks) -> None:
    features = networks.luma.fuse_features(torch.zeros(3, 1, 48, 64), torch.zeros(3, 1, 48, 64))
    assert [tuple(f.shape[1:]) for f in features] == [(48, 12, 16), (96, 6, 8), (192, 3, 4)]
    mean, variance = networks.luma.decoder(features, torch.zeros(3, 1, 48, 64), torch.tensor([999]))
    assert mean.shape == variance.shape == (3, 1, 48, 64)
    assert mean.dtype == variance.dtype == torch.float32


def test_an_image_is_encoded_independently_of_its_batch(networks: DriveNetworks) -> None:
    images = torch.rand(3, 1, 32, 48) * 2 - 1
    source = torch.tensor([SENSOR_INDEX[sensor] for sensor in (VISIBLE, INFRARED, VISIBLE)])
    together = networks.luma.encoder(images, source)
    alone = networks.luma.encoder(images[1:2], source[1:2])
    for batch, single in zip(together, alone, strict=True):
        torch.testing.assert_close(batch[1:2], single, rtol=1e-4, atol=1e-5)


def test_features_depend_on_the_sensor_and_the_whole_image() -> None:
    torch.manual_seed(1)
    encoder = DriveNetworks(DriveConfig()).luma.encoder
    torch.nn.init.normal_(encoder.context[-1].weight, std=0.1)
    image = torch.rand(1, 1, 160, 160)
    visible, infrared = (encoder(image, torch.tensor([SENSOR_INDEX[kind]])) for kind in (VISIBLE, INFRARED))
    assert not torch.allclose(visible[0], infrared[0])
    # A far corner is outside the receptive field of the first level, but changes it through the context.
    changed = image.clone()
    changed[..., -16:, -16:] = 1
    assert not torch.allclose(encoder(changed)[0][..., 0, 0], encoder(image)[0][..., 0, 0])


def test_decoder_depends_on_timestep_and_noise(networks: DriveNetworks) -> None:
    torch.nn.init.normal_(networks.luma.decoder.head.weight, std=0.1)  # zero before training
    features = networks.luma.fuse_features(torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32))
    noise = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    base, _ = networks.luma.decoder(features, noise, torch.tensor([999]))
    assert not torch.allclose(base, networks.luma.decoder(features, noise, torch.tensor([249]))[0])
    assert not torch.allclose(base, networks.luma.decoder(features, -noise, torch.tensor([999]))[0])


def test_an_untrained_control_weights_each_source_by_half() -> None:
    control = FusionControl((8,), 4)
    visible, infrared = torch.randn(2, 8, 6, 6), torch.randn(2, 8, 6, 6)
    (fused,) = control((visible,), (infrared,))
    torch.testing.assert_close(fused, (visible + infrared) / 2)


def test_control_weights_vary_by_place_within_their_limits() -> None:
    torch.manual_seed(2)
    control = FusionControl((8,), 4)
    torch.nn.init.normal_(control.levels[0].weigh.weight, std=30.0)
    visible = torch.randn(1, 8, 16, 16)
    infrared = torch.zeros(1, 8, 16, 16)
    share = control((visible,), (infrared,))[0] / visible
    assert share.min() >= 0 and share.max() <= LARGEST_WEIGHT
    assert share.std() > 0.01


def test_cbam_attenuates_positive_values_and_zeroes_negative_ones() -> None:
    torch.manual_seed(3)
    x = torch.randn(2, 8, 5, 7)
    out = CBAM(8)(x)
    assert out.shape == x.shape
    assert (out >= 0).all() and (out <= x.clamp(min=0)).all()


def test_the_prediction_is_the_same_without_the_variance(networks: DriveNetworks) -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 48, 64) * 2 - 1
    features, decoder = networks.luma.fuse_features(image, -image), copy.deepcopy(networks.luma.decoder)
    with torch.no_grad():
        torch.nn.init.normal_(decoder.head.weight, std=0.1)
        mean, variance = decoder(features, image, torch.tensor([499]))
        alone, none = decoder(features, image, torch.tensor([499]), variance=False)
    assert variance is not None and none is None
    torch.testing.assert_close(alone, mean)
    assert not torch.allclose(variance, mean)
