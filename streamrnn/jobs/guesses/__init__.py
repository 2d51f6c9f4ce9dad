"""Drafts of pipeline files: `streamrnn init` guesses keys from the data and the model; the demo."""

from streamrnn.jobs.guesses.demo import write_demo
from streamrnn.jobs.guesses.draft import Draft, draft_pipeline
