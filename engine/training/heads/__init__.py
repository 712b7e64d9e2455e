"""Random synthetic heads with known geometry, and pictures of them (training only).

Everything comes from the head data pack (CC0 shapes and textures, see its README). Needs numba and
scipy beside the engine's own dependencies. Field space: metres, +x to the subject's left, +y up,
+z out of the face, the midpoint between the eyes at `EYE_CENTRE`.
"""
