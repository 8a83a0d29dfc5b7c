"""The small image from the start: a project's recipe, printed as a Dockerfile or built without an engine."""
