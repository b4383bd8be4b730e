"""Networks as files that run without this package: formats, and the runtimes that run them."""
