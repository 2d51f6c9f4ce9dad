"""`python -m streamrnn`: the command `streamrnn`, run by this Python."""

from streamrnn.cli import main

if __name__ == "__main__":
    main()
