"""``python -m gemel``."""

from gemel.cli.main import main

main()
