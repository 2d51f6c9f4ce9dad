"""The end of help texts: an example of each command, and the exit codes."""

# "\b": click keeps the line breaks of the paragraph.
EXIT_CODES = """\b
Exit codes:
  0    done
  1    the run failed; `state diff`: tables differ
  2    unknown command or option
  65   invalid data, or a damaged model file
  66   pipeline file, model, source, output folder or other input not found
  75   committed, but a table of [publish] is behind; the next run catches up
  78   invalid pipeline file or argument; a model or state that does not fit
  130  interrupted; rerun to resume
  143  terminated before the run had begun (SIGTERM)
"""


def example(arguments: str, page: str) -> str:
    """Return the epilog of a command: one example of its arguments, and its page of the guide."""
    return f"\b\nExample:\n  streamrnn {arguments}\n\n\b\nMore:\n  streamrnn guide {page}"
