"""Inversion of a photo with EG3D checkpoints that the user has added."""
