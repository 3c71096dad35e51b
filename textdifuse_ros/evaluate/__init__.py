"""How methods are judged: controls, panels of pictures, statistics, reports."""
