"""Reports on outputs: the numbers of committed files, in words and pictures, on one HTML page.

- `command`, `reporting`   `streamrnn report`, `Pipeline.report`: what is read and drawn, in which
  order, and where the page goes
- `output`, `model`, `errors`   a file for each kind of picture: its numbers, its words, its marks
- `timeline`, `scan`       the axis that pictures share, and the pass over the rows of the output
- `picture`, `charts`, `page`   what a picture is, as Vega-Lite, as HTML
"""
