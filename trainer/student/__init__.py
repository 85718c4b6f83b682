"""Students: a backbone (timm's, or a vision transformer of the folder `vit`), and heads for each teacher.

`vit` is a part of this room; its modules import nothing else of the room.

Door: blocks, checkpointing, families, heads, model, shape, student, timm_backbone, vit.backbone, vit.names,
vit.presets.
"""
