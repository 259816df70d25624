"""Experiments: a folder a paper; `cli` is the command `jaxagent`."""
