"""Tables of Delta and Iceberg: read as sources, and published from the parts of an output."""
