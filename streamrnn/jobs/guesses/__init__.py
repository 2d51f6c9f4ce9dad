"""Drafts of pipeline files: `streamrnn init` guesses keys from the data and the model."""

from streamrnn.jobs.guesses.draft import Draft, draft_pipeline

__all__ = [
    "Draft",
    "draft_pipeline",
]
