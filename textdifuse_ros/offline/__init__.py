"""Whole recordings: bag to bag, resumable jobs, many recordings on Ray."""
