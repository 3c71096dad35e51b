"""The denoiser: the U-Net of guided diffusion (Dhariwal & Nichol 2021), cut into an encoder and a decoder.

The names of the modules are those of the published files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdifuse_ros.networks.blocks import conv

Features: TypeAlias = tuple[Tensor, ...]
"""What the encoder passes on: the output of each block from the finest on, then the middle's."""

HEADS = 4
ATTENTION_FROM = 3
"""The first level with attention, which is at 1/8 of the size."""


def norm(channels: int) -> nn.GroupNorm:
    """A normalization of groups of channels: 32 of them, or as many as divide both.

    :param channels: of input and output
    """
    return nn.GroupNorm(math.gcd(32, channels), channels)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; the time embedding scales and shifts between them.

    :param inputs: channels
    :param outputs: channels
    :param time_width: of the time embedding
    """

    def __init__(self, inputs: int, outputs: int, time_width: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(norm(inputs), nn.SiLU(), conv(inputs, outputs))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_width, 2 * outputs))
        # The third is their dropout of probability 0.
        self.out_layers = nn.Sequential(norm(outputs), nn.SiLU(), nn.Identity(), conv(outputs, outputs))
        self.skip_connection = nn.Identity() if inputs == outputs else conv(inputs, outputs, kernel=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Apply the block.

        :param x: [N, C, H, W]
        :param time: [N or 1, time width]
        """
        h = self.in_layers(x)
        scale, shift = self.emb_layers(time)[:, :, None, None].chunk(2, 1)
        h = self.out_layers[0](h) * (1 + scale) + shift
        return self.skip_connection(x) + self.out_layers[1:](h)


class Attention(nn.Module):
    """Self-attention between all pixels.

    :param channels: of input and output
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Apply the block.

        :param x: [N, C, H, W]
        :param time: not used
        """
        flat = x.flatten(2)  # [N, C, HW]
        # The queries of all heads come first, then the keys, then the values: each becomes [N, heads, HW, C / heads].
        q, k, v = (part.unflatten(1, (HEADS, -1)).mT for part in self.qkv(self.norm(flat)).chunk(3, 1))
        attended = F.scaled_dot_product_attention(q, k, v).mT.flatten(1, 2)  # [N, C, HW]
        return (flat + self.proj_out(attended)).view(x.shape)


class Downsample(nn.Module):
    """Halve the size.

    :param channels: of input and output
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = conv(channels, channels, stride=2)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Apply the block.

        :param x: [N, C, H, W]
        :param time: not used
        """
        halved: Tensor = self.op(x)
        return halved


class Upsample(nn.Module):
    """Double the size.

    :param channels: of input and output
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Apply the block.

        :param x: [N, C, H, W]
        :param time: not used
        """
        doubled: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return doubled


class _Input(nn.Module):
    """The first convolution, named as the first layer of its block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.add_module("0", conv(2, width))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        first: Tensor = self.get_submodule("0")(x)
        return first


class Block(nn.ModuleList):
    """Layers in a row, each of which takes the time embedding.

    :param layers: the layers
    """

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Apply all layers.

        :param x: [N, C, H, W]
        :param time: [N or 1, time width]
        """
        for layer in self:
            x = layer(x, time)
        return x


class TimeEmbedding(nn.Sequential):
    """Sinusoids of the timestep, then two linear layers.

    :param width: number of sinusoids
    """

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        self.width = width

    def forward(self, timestep: Tensor) -> Tensor:
        """Embed timesteps.

        :param timestep: integer or float [N], of the full schedule
        :returns: [N, 4 * width] in the precision of the weights
        """
        half = self.width // 2
        rates = torch.exp(-math.log(10_000) * torch.arange(half, device=timestep.device, dtype=torch.float32) / half)
        phase = timestep.to(torch.float32)[:, None] * rates[None]
        wave = torch.cat((phase.cos(), phase.sin()), 1)
        embedded: Tensor = super().forward(wave.to(next(self.parameters()).dtype))
        return embedded


def feature_shapes(widths: Sequence[int], blocks: int) -> list[tuple[int, int]]:
    """Channels and level of each of the encoder's blocks, from the finest on.

    :param widths: channels of each level
    :param blocks: residual blocks of each level
    """
    shapes = [(widths[0], 0)]
    for level, width in enumerate(widths):
        if level:
            shapes.append((widths[level - 1], level))
        shapes += [(width, level)] * blocks
    return shapes


def _layers(inputs: int, outputs: int, level: int, time_width: int) -> list[nn.Module]:
    layers: list[nn.Module] = [ResidualBlock(inputs, outputs, time_width)]
    return [*layers, Attention(outputs)] if level >= ATTENTION_FROM else layers


class Encoder(nn.Module):
    """Stage 1: encodes z_t together with one source (equation 2).

    :param widths: channels of each level
    :param blocks: residual blocks of each level
    """

    def __init__(self, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        time_width = 4 * widths[0]
        self.time_embed = TimeEmbedding(widths[0])
        self.input_blocks = nn.ModuleList([_Input(widths[0])])
        channels = widths[0]
        for level, width in enumerate(widths):
            if level:
                self.input_blocks.append(Block([Downsample(channels)]))
            for _ in range(blocks):
                self.input_blocks.append(Block(_layers(channels, width, level, time_width)))
                channels = width
        self.middle_block = Block(
            [
                ResidualBlock(channels, channels, time_width),
                Attention(channels),
                ResidualBlock(channels, channels, time_width),
            ]
        )

    def forward(self, z_t: Tensor, source: Tensor, timestep: Tensor) -> Features:
        """Encode.

        :param z_t: [N, 1, H, W]; H and W multiples of 16
        :param source: [N, 1, H, W] in [-1, 1]
        :param timestep: [N or 1], of the full schedule
        """
        time = self.time_embed(timestep)
        x = torch.cat((z_t, source), 1).to(time.dtype)
        features = []
        for block in self.input_blocks:
            x = block(x, time)
            features.append(x)
        return (*features, self.middle_block(x, time))


class Decoder(nn.Module):
    """Stage 2: predicts the noise and its variance from features (equation 4).

    :param widths: channels of each level
    :param blocks: residual blocks of each of the encoder's levels; here there is one more
    """

    def __init__(self, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        time_width = 4 * widths[0]
        self.time_embed = TimeEmbedding(widths[0])
        skips = [channels for channels, _ in feature_shapes(widths, blocks)]
        self.output_blocks = nn.ModuleList()
        channels = widths[-1]
        for level in reversed(range(len(widths))):
            for n in range(blocks + 1):
                layers = _layers(channels + skips.pop(), widths[level], level, time_width)
                channels = widths[level]
                if level and n == blocks:
                    layers.append(Upsample(channels))
                self.output_blocks.append(Block(layers))
        self.out = nn.Sequential(norm(channels), nn.SiLU(), conv(channels, 2))

    def forward(self, features: Features, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Decode.

        :param features: of :class:`Encoder`, or such as the fusion control makes
        :param timestep: [N or 1], of the full schedule
        :returns: eps, and v in [-1, 1] from ``beta~`` to ``beta``; each float32 [N, 1, H, W]
        """
        time = self.time_embed(timestep)
        *skips, x = features
        for block in self.output_blocks:
            x = block(torch.cat((x, skips.pop()), 1), time)
        eps, v = self.out(x).float().chunk(2, 1)
        return eps, v
