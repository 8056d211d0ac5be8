<<<<<<< HEAD
"""``python -m gemel``."""

from gemel.cli.main import main

main()
=======
"""`python -m gemel` is the command `gemel`."""

if __name__ == "__main__":
    from gemel.cli.main import main

    main()
>>>>>>> 900f292 (Setup, demo and test: make targets and their scripts)
