"""How good a fused picture is: pure functions of pictures, float64, one source each.

Grey pictures are uint8 or float64 [H, W] in 0 .. 255; a colour picture's grey is OpenCV's 8-bit BT.601
(:func:`.pictures.to_grey`). A metric that is undefined for the pictures given (a constant one, say) is NaN and its
docstring says when; it is never 0 in place of that. :func:`.table.clean_metrics` gives all of them at once.
"""
