"""Temporal layers and motion modules over videogen's image networks."""
