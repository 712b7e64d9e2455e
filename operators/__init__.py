"""What a user can do: one verb a file."""

import bpy

_classes = ()


def register():
    global _classes
    from . import parameters
    from .cancel import TRIPLANE_OT_cancel
    from .check_engine import TRIPLANE_OT_check_engine
    from .extract_mesh import TRIPLANE_OT_extract_mesh
    from .open_preferences import TRIPLANE_OT_open_preferences
    from .pick_photo import TRIPLANE_OT_pick_photo
    from .place_points import TRIPLANE_OT_place_points
    from .reconstruct_head import TRIPLANE_OT_reconstruct_head
    from .render_field import TRIPLANE_OT_render_field
    from .save_field import TRIPLANE_OT_save_field
    from .view_photo import TRIPLANE_OT_view_photo

    parameters.register()
    _classes = (
        TRIPLANE_OT_cancel,
        TRIPLANE_OT_check_engine,
        TRIPLANE_OT_extract_mesh,
        TRIPLANE_OT_open_preferences,
        TRIPLANE_OT_pick_photo,
        TRIPLANE_OT_place_points,
        TRIPLANE_OT_reconstruct_head,
        TRIPLANE_OT_render_field,
        TRIPLANE_OT_save_field,
        TRIPLANE_OT_view_photo,
    )
    for cls in _classes:
        bpy.utils.register_class(cls)


def unregister():
    from . import parameters, preflight, session

    session.close()
    preflight.forget()
    for cls in reversed(_classes):
        bpy.utils.unregister_class(cls)
    parameters.unregister()
