"""All that is measured on a CPU, a little of each in five minutes, onto one page: `nox -s bench`, `python -m bench`."""
