"""One build of a distribution in the place of another of the same version, in an image, without an engine.

The image with the swap done is itself an image (`swapped.py`), over which planning and building go on as over any
other.
"""
