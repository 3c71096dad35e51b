"""Images: color, value ranges, sizes, gradients, thermal counts, message encodings, files."""
