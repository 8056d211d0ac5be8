"""One module for each group of commands; gemel.cli.registry names them."""
