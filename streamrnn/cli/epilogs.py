"""The end of help texts: an example of each command, and the exit codes."""

# "\b": click keeps the line breaks of the paragraph.
EXIT_CODES = """\b
Exit codes:
  0    done
  1    the run failed; `state diff`: tables differ
  2    unknown command or option
  65   invalid or missing data
  78   invalid pipeline file, argument, model or state
  130  interrupted; rerun to resume
"""


def example(arguments: str) -> str:
    """Return the epilog of a command with one example of its arguments."""
    return f"\b\nExample:\n  streamrnn {arguments}"
