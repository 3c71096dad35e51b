"""Configuration dataclasses: one field per parameter, one module per group."""
