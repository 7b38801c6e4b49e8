"""`python -m whimbrel`: the command line, as the scheduler starts it."""

from whimbrel.cli.main import main

if __name__ == "__main__":
    main()
