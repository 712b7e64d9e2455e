"""What a user can do: one verb a file."""

import bpy

_classes = ()


def register():
    global _classes
    from . import edit_live, objects, parameters, sampling, sliders, viewing
    from .bake_views import TRIPLANE_OT_bake_views
    from .camera_rig import TRIPLANE_OT_camera_rig
    from .cancel import TRIPLANE_OT_cancel
    from .check_engine import TRIPLANE_OT_check_engine
    from .compare_methods import TRIPLANE_OT_compare_methods
    from .edit_head import TRIPLANE_OT_edit_head
    from .edit_keyframe import TRIPLANE_OT_edit_keyframe
    from .edit_reset import TRIPLANE_OT_edit_reset
    from .edit_sliders import TRIPLANE_OT_edit_sliders
    from .export_dataset import TRIPLANE_OT_export_dataset
    from .export_head import TRIPLANE_OT_export_head
    from .extract_mesh import TRIPLANE_OT_extract_mesh
    from .find_directions import TRIPLANE_OT_find_directions, TRIPLANE_OT_name_direction
    from .gallery import TRIPLANE_OT_gallery
    from .interpolate import TRIPLANE_OT_interpolate
    from .keyframe_heads import TRIPLANE_OT_keyframe_heads
    from .model_add import TRIPLANE_OT_model_add
    from .model_default import TRIPLANE_OT_model_default
    from .model_download import TRIPLANE_OT_model_download
    from .model_remove import TRIPLANE_OT_model_remove
    from .model_rename import TRIPLANE_OT_model_rename
    from .model_verify import TRIPLANE_OT_model_verify
    from .open_preferences import TRIPLANE_OT_open_preferences
    from .pick_model import TRIPLANE_OT_pick_model
    from .pick_photo import TRIPLANE_OT_pick_photo
    from .place_points import TRIPLANE_OT_place_points
    from .random_scene import TRIPLANE_OT_random_scene
    from .random_seed import TRIPLANE_OT_random_seed
    from .reconstruct_head import TRIPLANE_OT_reconstruct_head
    from .reconstruct_object import TRIPLANE_OT_reconstruct_object
    from .render_field import TRIPLANE_OT_render_field
    from .sample_head import TRIPLANE_OT_sample_head
    from .save_field import TRIPLANE_OT_save_field
    from .take_settings import TRIPLANE_OT_take_settings
    from .view_photo import TRIPLANE_OT_view_photo
    from .view_sheet import TRIPLANE_OT_view_sheet

    parameters.register()
    sampling.register()
    viewing.register()
    objects.register()
    sliders.register()
    _classes = (
        TRIPLANE_OT_bake_views,
        TRIPLANE_OT_camera_rig,
        TRIPLANE_OT_cancel,
        TRIPLANE_OT_check_engine,
        TRIPLANE_OT_compare_methods,
        TRIPLANE_OT_edit_head,
        TRIPLANE_OT_edit_keyframe,
        TRIPLANE_OT_edit_reset,
        TRIPLANE_OT_edit_sliders,
        TRIPLANE_OT_export_dataset,
        TRIPLANE_OT_export_head,
        TRIPLANE_OT_extract_mesh,
        TRIPLANE_OT_find_directions,
        TRIPLANE_OT_gallery,
        TRIPLANE_OT_interpolate,
        TRIPLANE_OT_keyframe_heads,
        TRIPLANE_OT_model_add,
        TRIPLANE_OT_model_default,
        TRIPLANE_OT_model_download,
        TRIPLANE_OT_model_remove,
        TRIPLANE_OT_model_rename,
        TRIPLANE_OT_model_verify,
        TRIPLANE_OT_name_direction,
        TRIPLANE_OT_open_preferences,
        TRIPLANE_OT_pick_model,
        TRIPLANE_OT_pick_photo,
        TRIPLANE_OT_place_points,
        TRIPLANE_OT_random_scene,
        TRIPLANE_OT_random_seed,
        TRIPLANE_OT_reconstruct_head,
        TRIPLANE_OT_reconstruct_object,
        TRIPLANE_OT_render_field,
        TRIPLANE_OT_sample_head,
        TRIPLANE_OT_save_field,
        TRIPLANE_OT_take_settings,
        TRIPLANE_OT_view_photo,
        TRIPLANE_OT_view_sheet,
    )
    for cls in _classes:
        bpy.utils.register_class(cls)
    edit_live.register()


def unregister():
    from . import (
        edit_live,
        objects,
        parameters,
        preflight,
        sampling,
        session,
        shelf,
        sliders,
        viewing,
    )

    edit_live.unregister()
    session.close()
    preflight.forget()
    shelf.forget()
    for cls in reversed(_classes):
        bpy.utils.unregister_class(cls)
    sliders.unregister()
    objects.unregister()
    viewing.unregister()
    sampling.unregister()
    parameters.unregister()
