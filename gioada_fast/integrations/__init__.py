"""The ops in models of other packages; each module is imported only by those who use it."""
