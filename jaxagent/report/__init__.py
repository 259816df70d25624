"""The report of a run: pictures (`render.py`), figures (`figures.py`) and one page (`html.py`)."""
