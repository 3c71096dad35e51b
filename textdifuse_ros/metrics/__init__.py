"""Quality metrics of fused images: pure functions in float64, each with its source.

Grey images are uint8 or float64 [H, W] in 0 .. 255; color images are reduced by OpenCV's 8-bit BT.601 luma
(:func:`.images.to_grey`). A metric that is undefined for the given images (for example constant ones) is NaN, never 0;
its docstring says when. :func:`.table.clean_metrics` computes all of them.
"""
