"""The demonstration: the method's own story, told on real handwriting that needs no download."""
