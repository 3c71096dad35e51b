"""Parameters: one dataclass field each, one module per group."""
