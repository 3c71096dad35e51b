"""How good a fused image is: pure functions of images, float64, one source each.

Grey images are uint8 or float64 [H, W] in 0 .. 255; a color image's grey is OpenCV's 8-bit BT.601
(:func:`.images.to_grey`). A metric that is undefined for the images given (a constant one, say) is NaN and its
docstring says when; it is never 0 in place of that. :func:`.table.clean_metrics` gives all of them at once.
"""
