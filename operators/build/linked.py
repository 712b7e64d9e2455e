"""An image sequence on disk, shown by the camera that it was made for."""

from __future__ import annotations

import json
import os

import bpy

from .sequence import _short as short

MARK = "triplane_views"  # on an image and on a plane: facts about the sequence that it shows


def image(path: str, name: str, facts: dict) -> bpy.types.Image:
    """The sequence whose first file is `path`, as an image; the one there is, if it already shows
    files of that name in that folder. facts: JSON-able, kept on it."""
    wanted = _sequence(path)
    for found in bpy.data.images:
        if MARK in found and _sequence(bpy.path.abspath(found.filepath)) == wanted:
            found.filepath = short(path)
            found.reload()
            break
    else:
        found = bpy.data.images.load(short(path))
        found.name = name
    found.source = "SEQUENCE"
    found[MARK] = json.dumps(facts)
    return found


def of_head(name: str) -> list[tuple[bpy.types.Image, dict]]:
    """(image, facts) of the sequences that show the head of this name. Cheap enough for a panel."""
    found = []
    for image in bpy.data.images:
        if MARK in image:
            facts = json.loads(image[MARK])
            if facts.get("head") == name:
                found.append((image, facts))
    return found


def _sequence(path: str) -> tuple[str, ...]:
    """What the files of one sequence have in common."""
    stem, ending = os.path.splitext(path)
    return os.path.normcase(os.path.normpath(stem.rpartition("_")[0])), ending


def picture(path: str, name: str) -> bpy.types.Image:
    """A picture on disk as an image, read anew; the one there is, if it shows the same file."""
    for found in bpy.data.images:
        if found.source == "FILE" and found.filepath and not found.packed_file:
            if bpy.path.abspath(found.filepath) == path:
                found.reload()
                return found
    found = bpy.data.images.load(short(path))
    found.name = name
    return found


def show(context: bpy.types.Context, shown: bpy.types.Image) -> None:
    """Have every Image Editor show an image."""
    for window in context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "IMAGE_EDITOR":
                area.spaces.active.image = shown


def timed(user, first: int, count: int) -> None:
    """Have an image's user show file n at frame n, for the files first, first + 1, ..."""
    user.frame_duration, user.frame_start, user.frame_offset = count, first, first - 1
    user.use_auto_refresh = True


def background(camera: bpy.types.Object, shown: bpy.types.Image, first: int, count: int) -> None:
    """Show a sequence behind all that `camera` sees. It fills the camera's frame exactly."""
    data = camera.data
    slot = next((b for b in data.background_images if b.image == shown), None)
    slot = slot or data.background_images.new()
    slot.image = shown
    slot.alpha = 1.0
    slot.frame_method = "STRETCH"  # pixels need not be square
    slot.display_depth = "BACK"
    timed(slot.image_user, first, count)
    data.show_background_images = True


def plane(
    camera: bpy.types.Object,
    shown: bpy.types.Image,
    first: int,
    count: int,
    distance: float,
    shape: tuple[float, float],
) -> bpy.types.Object:
    """A plane before `camera` that fills its view with a sequence, and goes on filling it when the
    camera's lens or shift changes. distance: from the camera, in scene units; shape: width and
    height of the picture in any unit, with the pixels' aspect."""
    made = next((c for c in camera.children if MARK in c and _shown(c) == shown), None)
    if made is None:
        name = f"{camera.name} views"
        data = bpy.data.meshes.new(name)
        corners = [(-0.5, -0.5, 0), (0.5, -0.5, 0), (0.5, 0.5, 0), (-0.5, 0.5, 0)]
        data.from_pydata(corners, [], [(0, 1, 2, 3)])
        layer = data.uv_layers.new(name="UVMap", do_init=False)
        layer.uv.foreach_set("vector", (0, 0, 1, 0, 1, 1, 0, 1))
        data.materials.append(_material(name, shown))
        made = bpy.data.objects.new(name, data)
        made.parent = camera
        made[MARK] = shown[MARK]
        for collection in camera.users_collection:
            collection.objects.link(made)
    user = made.data.materials[0].node_tree.nodes.active.image_user
    timed(user, first, count)
    _fill_view(made, camera, distance, shape)
    return made


def _fill_view(made, camera, distance, shape) -> None:
    data, (across, down) = camera.data, shape
    fit = data.sensor_fit
    if fit == "AUTO":
        fit, sensor = "HORIZONTAL" if across >= down else "VERTICAL", "sensor_width"
    else:
        sensor = "sensor_width" if fit == "HORIZONTAL" else "sensor_height"
    fitted = across if fit == "HORIZONTAL" else down
    made.location.z = -distance
    # Arithmetic only: Blender evaluates it itself, and asks nobody's permission to run Python.
    side, names = f"{distance!r} * sensor / lens", {"sensor": sensor, "lens": "lens"}
    if data.type == "ORTHO":
        side, names = "scale", {"scale": "ortho_scale"}
    _drive(made, "scale", 0, f"{side} * {across / fitted!r}", data, names)
    _drive(made, "scale", 1, f"{side} * {down / fitted!r}", data, names)
    _drive(made, "location", 0, f"{side} * shift", data, names | {"shift": "shift_x"})
    _drive(made, "location", 1, f"{side} * shift", data, names | {"shift": "shift_y"})


def _drive(made, path, index, expression, data, names) -> None:
    made.driver_remove(path, index)
    driver = made.driver_add(path, index).driver
    driver.type = "SCRIPTED"
    for name, source in names.items():
        variable = driver.variables.new()
        variable.name = name
        variable.targets[0].id_type = "CAMERA"
        variable.targets[0].id = data
        variable.targets[0].data_path = source
    driver.expression = expression


def _material(name: str, shown: bpy.types.Image) -> bpy.types.Material:
    material = bpy.data.materials.new(name)
    if bpy.app.version < (5, 0):  # later versions always have nodes, and warn when told so
        material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    material.surface_render_method = "BLENDED"
    picture = nodes.new("ShaderNodeTexImage")
    picture.image = shown
    picture.extension = "CLIP"
    emission = nodes.new("ShaderNodeEmission")  # the pictures have their own light in them
    nothing = nodes.new("ShaderNodeBsdfTransparent")
    mixed = nodes.new("ShaderNodeMixShader")
    output = nodes.new("ShaderNodeOutputMaterial")
    for number, node in enumerate((picture, emission, nothing, mixed, output)):
        node.location = (250 * (number - (number > 1)), -150 * (number == 2))
    links.new(picture.outputs["Color"], emission.inputs["Color"])
    links.new(picture.outputs["Alpha"], mixed.inputs["Fac"])
    links.new(nothing.outputs[0], mixed.inputs[1])
    links.new(emission.outputs[0], mixed.inputs[2])
    links.new(mixed.outputs[0], output.inputs["Surface"])
    nodes.active = picture  # what solid shading shows in its texture mode
    return material


def compositor(scene: bpy.types.Scene, shown: bpy.types.Image, first: int, count: int) -> None:
    """An image node with a sequence among the scene's compositing nodes, for the artist to link."""
    tree = _tree(scene)
    nodes = [n for n in tree.nodes if n.bl_idname == "CompositorNodeImage"]
    node = next((n for n in nodes if n.image == shown), None)
    if node is None:
        node = tree.nodes.new("CompositorNodeImage")
        node.image = shown
        node.location = (0, -350 - 350 * len(nodes))
    node.label = shown.name
    timed(node, first, count)


def _tree(scene: bpy.types.Scene) -> bpy.types.NodeTree:
    """The scene's compositing nodes; if there are none, new ones that show what is rendered."""
    if bpy.app.version < (5, 0):
        if not scene.use_nodes:
            scene.use_nodes = True  # makes the usual two nodes
        return scene.node_tree
    tree = scene.compositing_node_group
    if tree is None:
        tree = bpy.data.node_groups.new("Compositing", "CompositorNodeTree")
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        source, sink = tree.nodes.new("CompositorNodeRLayers"), tree.nodes.new("NodeGroupOutput")
        sink.location = (400, 0)
        tree.links.new(source.outputs["Image"], sink.inputs["Image"])
        scene.compositing_node_group = tree
    return tree


def _shown(made: bpy.types.Object) -> bpy.types.Image | None:
    """The image on a plane of ours, unless the artist has given it another material."""
    material = made.active_material
    node = material.node_tree.nodes.active if material and material.node_tree else None
    return getattr(node, "image", None)
