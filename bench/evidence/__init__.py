"""Evidence that the method works: every method on real volumes, at rising rates, with three seeds: `nox -s evidence`.

Data flows one way: settings -> tasks and methods -> chains of training (`chain`) -> rows in a CSV (`rows`) -> times of
the networks kept (`latency`) -> claims, figures and the page (`claims`, `figures`, `page`).
"""
