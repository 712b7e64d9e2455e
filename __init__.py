"""Triplane: one photo in, a textured head with its camera and radiance field out."""


def register():
    from . import operators, panels

    operators.register()
    panels.register()


def unregister():
    from . import operators, panels

    panels.unregister()
    operators.unregister()
