"""`python -m experiments` is the command `jaxagent`."""

from experiments.cli import main

raise SystemExit(main())
