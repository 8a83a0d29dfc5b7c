"""The mistakes in a Dockerfile, or in the history of an image, that make it heavy: the line, and the bytes they cost.

`subject` is what is looked at, `shell` and `steps` tell what a RUN does, `measure` what of an image a line cost, and
each other module has rules; `table` lists them.
"""
