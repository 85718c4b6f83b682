"""Students: a backbone, its registers and class tokens, and a head for each teacher.

Door: model, student, shape, timm_backbone, vit.backbone.
"""
