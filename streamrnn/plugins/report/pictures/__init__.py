"""Pictures of a report: their numbers and words in, one HTML file out."""
