"""Builders of corpora that anyone can download."""
