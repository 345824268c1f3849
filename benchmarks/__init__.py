"""Measurements of speed, memory and quality; each writes a dated record."""
