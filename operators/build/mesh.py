"""Arrays to a Blender mesh and its material."""

from __future__ import annotations

import bpy
import numpy as np


def build_mesh(
    name: str, vertices: np.ndarray, faces: np.ndarray, uvs: np.ndarray
) -> bpy.types.Mesh:
    """A smooth-shaded mesh data-block with one UV map.

    vertices: float32 [V, 3] in the object's space, metres. faces: int32 [F, 3] or [F, 4],
    counter-clockwise from outside. uvs: float32 [F, 3 or 4, 2] a corner, v up.
    Raises ValueError when the arrays do not belong together (Blender itself would crash).
    """
    check(vertices, faces, uvs)
    count, sides = faces.shape
    mesh = bpy.data.meshes.new(name)
    try:
        mesh.vertices.add(len(vertices))
        mesh.vertices.foreach_set("co", np.ascontiguousarray(vertices, np.float32).ravel())
        mesh.loops.add(sides * count)
        mesh.loops.foreach_set("vertex_index", np.ascontiguousarray(faces, np.int32).ravel())
        mesh.polygons.add(count)
        mesh.polygons.foreach_set("loop_start", np.arange(0, sides * count, sides, dtype=np.int32))
        mesh.polygons.foreach_set("use_smooth", np.ones(count, bool))
        layer = mesh.uv_layers.new(name="UVMap", do_init=False)
        layer.uv.foreach_set("vector", np.ascontiguousarray(uvs, np.float32).ravel())
        mesh.update(calc_edges=True)
    except BaseException:
        bpy.data.meshes.remove(mesh)
        raise
    return mesh


def check(vertices: np.ndarray, faces: np.ndarray, uvs: np.ndarray) -> None:
    """Raise ValueError unless the arrays make a mesh of triangles or of quads."""
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
        raise ValueError("the vertices are not finite points [V, 3]")
    if faces.ndim != 2 or faces.shape[1] not in (3, 4) or not len(faces):
        raise ValueError("the faces are neither triangles [F, 3] nor quads [F, 4]")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError("a face names a vertex that does not exist")
    corners = np.sort(faces, 1)
    if (corners[:, 1:] == corners[:, :-1]).any():
        raise ValueError("a face uses one vertex twice")
    if uvs.shape != (*faces.shape, 2) or not np.isfinite(uvs).all():
        raise ValueError("the UVs are not finite, two a corner")


def build_material(name: str, texture: bpy.types.Image) -> bpy.types.Material:
    """A Principled material whose base colour is `texture`: skin, matte rather than glossy."""
    material = bpy.data.materials.new(name)
    if bpy.app.version < (5, 0):  # later versions always have nodes, and warn when told so
        material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    output = nodes.new("ShaderNodeOutputMaterial")
    shader = nodes.new("ShaderNodeBsdfPrincipled")
    picture = nodes.new("ShaderNodeTexImage")
    picture.image = texture
    picture.extension = "EXTEND"
    picture.location, shader.location, output.location = (-320, 0), (0, 0), (300, 0)
    # The photo's own highlights are baked in: a second, sharp one would look like plastic.
    shader.inputs["Roughness"].default_value = 0.55
    shader.inputs["Specular IOR Level"].default_value = 0.3
    links.new(picture.outputs["Color"], shader.inputs["Base Color"])
    links.new(shader.outputs["BSDF"], output.inputs["Surface"])
    material.roughness, material.specular_intensity = 0.8, 0.1  # the same in solid shading
    nodes.active = picture  # what solid shading shows in its texture mode, and what bakes go to
    return material
