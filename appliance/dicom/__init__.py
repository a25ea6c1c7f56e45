"""What a CT series and a structure set are.

This room is pure: bytes and arrays in, bytes and arrays out. It knows no network, no database and no model.

    bytes → CtSlice → CtSeries → CtVolume → … → RoiMask → RoiContours → StructureSet
    ct_slice          ct_series  ct_volume       roi       contours      structure_set, structure_check
"""
