"""Diffusion itself: schedules, respacing, predictions, samplers, the open reverse loop and the losses.

Nothing here knows images or networks: a network takes part as a :class:`~textdifuse_ros.diffusion.denoiser.Denoiser`.
"""
