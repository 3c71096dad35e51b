"""Training: one Trainer, and a file per stage."""
