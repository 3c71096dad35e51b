"""How methods are judged: controls, panels of images, statistics, reports."""
