"""`python -m streamrnn`: the command, by the Python that has the package."""

from streamrnn.cli import main

if __name__ == "__main__":
    main()
