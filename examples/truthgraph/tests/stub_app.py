"""The service with the tests' inference, for a second process: the remote of remote inference."""

from stub import StubInference
from truthgraph.main import create_app

app = create_app(inference=StubInference())
