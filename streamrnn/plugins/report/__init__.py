"""Reports on outputs: the numbers of committed files, in words and pictures, on one HTML page.

- `command`, `reporting`   `streamrnn report`, `Pipeline.report`: what is drawn, and where it goes
- `making`                 what is read, in which order, and which pictures are drawn
- `over_time`, `rows`, `streams`, `features`, `state`, `errors`, `curves`   a file for each kind of
  picture: its numbers, its words, its marks
- `timeline`, `scan`       the axis that they share, and the pass over the rows of the output
- `picture`, `charts`, `page`   what a picture is, as Vega-Lite, as HTML
"""
