"""Files that hold models: what is in them, which of a folder's a library loads, and how weights get smaller."""
