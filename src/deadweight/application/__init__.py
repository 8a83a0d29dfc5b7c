"""What an image or a project shows of its application: what is served, how, and where. Nothing of it is run."""
