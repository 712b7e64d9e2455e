"""Triplane's engine: from pictures to radiance fields, meshes and textures. Never imports bpy."""

__version__ = "0.1.0"
