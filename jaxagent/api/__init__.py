"""The front door, above everything else: `jaxagent.learn`, and `jaxagent train` on the command line."""
