"""``python -m fullyconv``, as launchers of many processes start it."""

from fullyconv.cli import main

if __name__ == "__main__":
    main()
