"""Diffusion fusion: the networks in the reverse loop, from a pair of pictures to a fused one."""
