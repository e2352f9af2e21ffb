"""Integrated multi-level knowledge distillation for speaker verification."""

__version__ = "0.1.0"
