"""Experiments: one thin file a paper; `cli.py` is the command `jaxagent`."""
