"""Synthetic-to-real adaptation for semantic segmentation, guided by geometry on two levels.

GIO-Ada: Chen, Li, Chen, Van Gool, "Learning Semantic Segmentation from Synthetic Data: A
Geometrically Guided Input-Output Adaptation Approach", CVPR 2019 (arXiv 1812.05040).
"""

__version__ = "0.2.0"
