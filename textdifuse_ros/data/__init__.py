"""Training and evaluation data: pairs, crops, degradations."""
