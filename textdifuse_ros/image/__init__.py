"""Images: colour, ranges, sizes, gradients, thermal counts, message encodings, files."""
