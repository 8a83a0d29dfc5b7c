"""Where things are in an image that is built from a project, and who runs it."""

VENV = "/opt/venv"
"""Where dependencies are: a virtual environment of the base's Python."""
APP = "/app"
"""The working directory, which the user owns."""
APP_LIB = "/app/lib"
"""Where a project that can be installed is (`pip install --no-deps --target`), in PYTHONPATH; its scripts in `bin`."""
USER = "app"
UID = 10001
"""Of the user and its group: high enough for no base to have it."""
