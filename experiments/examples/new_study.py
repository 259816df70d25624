# %% [markdown]
# # A study of your own
#
# `jaxagent new my_study` writes two files: `config.py`, settings and presets, and `study.py`, what is trained,
# what is measured and what is claimed. It runs at once; change it into yours.

# %%
import tempfile
from pathlib import Path

from experiments.cli import main

folder = Path(tempfile.mkdtemp())  # a folder of yours, such as Path("."), keeps it
place = folder / "my_study"
assert main(["new", str(place)]) == 0
print(*(place / "study.py").read_text().splitlines()[:12], sep="\n")

# %% [markdown]
# The smallest preset shows that all of it works; its verdicts mean nothing.

# %%
out = folder / "smoke"
assert main(["run", str(place), "--preset", "smoke", "--out", str(out)]) == 0
print(out / "report.html")
