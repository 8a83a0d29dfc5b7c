"""Whether the slim image behaves like the original: a proof without running anything, then probes in both."""
