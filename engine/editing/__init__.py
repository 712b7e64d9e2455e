"""Changing a head that is there, along semantic directions."""
