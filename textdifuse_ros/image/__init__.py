"""Images: color, ranges, sizes, gradients, thermal counts, message encodings, files."""
