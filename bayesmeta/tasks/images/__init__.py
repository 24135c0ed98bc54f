"""Tasks from images: classes of them, and the episodes that are drawn from classes."""
