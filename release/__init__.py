"""What a maintainer runs for a release: ``make wheel`` and ``make matrix``, see docs/releasing.md."""
