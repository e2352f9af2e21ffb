"""Trains many models, scores them and reports their differences."""
