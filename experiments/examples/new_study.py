# %% [markdown]
# # A study of your own
#
# `jaxagent new my_study` writes two files: `config.py`, settings and presets, and `study.py`, what is trained,
# what is measured and what is claimed. It runs at once; change it into yours.

# %%
import shutil
from pathlib import Path

from experiments.cli import main

place = Path("runs/examples/my_study")
shutil.rmtree(place, ignore_errors=True)
assert main(["new", str(place)]) == 0
print(*(place / "study.py").read_text().splitlines()[:12], sep="\n")

# %% [markdown]
# The smallest preset shows that all of it works; its verdicts mean nothing.

# %%
out = Path("runs/examples/my_study_smoke")
shutil.rmtree(out, ignore_errors=True)
assert main(["run", str(place), "--preset", "smoke", "--out", str(out)]) == 0
print(out / "report.html")
