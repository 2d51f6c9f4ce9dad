"""Reports on outputs: the numbers of committed files, in words and pictures, on one HTML page."""
