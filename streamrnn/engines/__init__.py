"""Where shards run. One process runs the one loop today."""
