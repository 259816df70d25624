"""The report of a run: one page (`html.py`) of pictures (`render.py`) and figures (`figures.py`).

`gallery.py` draws the figures that a summary describes; `elements.py` and `fields.py` are the
page's pieces and its reading of JSON.
"""
