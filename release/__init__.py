"""The scripts of a release: ``make wheel`` and ``make matrix``, see docs/releasing.md."""
