"""Diffusion itself: schedules, respacing, predictions, samplers, the open reverse loop and the losses.

Nothing here depends on images or networks: a network is used as a :class:`~textdifuse_ros.diffusion.denoiser.Denoiser`.
"""
