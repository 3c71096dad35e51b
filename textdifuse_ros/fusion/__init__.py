"""Diffusion fusion: the networks in the reverse loop, from a pair of images to a fused one."""
