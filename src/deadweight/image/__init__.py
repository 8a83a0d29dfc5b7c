"""Container images: reading, the merged view, editing, writing. Knows nothing of Python packages or CUDA."""
