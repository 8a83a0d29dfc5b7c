"""What was worked out before, so that it need not be worked out again: layers, what is in them, what passes make of
files. All of it may vanish at any time, and then is worked out anew, with the same result (docs/cache.md).
"""
