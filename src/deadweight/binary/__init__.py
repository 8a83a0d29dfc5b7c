"""Machine-code formats. Knows nothing of images or packages; useful on its own."""
