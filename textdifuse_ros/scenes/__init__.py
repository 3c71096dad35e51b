"""A synthetic night drive seen by a visible and a thermal camera, with true masks and boxes."""
