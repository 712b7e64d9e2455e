"""Results to Blender data."""
