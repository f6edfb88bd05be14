"""Evidence that pruning keeps the function: every method on three tasks, at rising rates: `nox -s evidence`.

Data flows one way: settings -> tasks and methods -> chains of training (`chain`) -> rows in a CSV (`rows`) and what
each network makes of each test sample (`outcomes`) -> times of the networks kept (`latency`) -> scores and intervals
(`bootstrap`, `results`) -> claims, figures and the page (`claims`, `figures`, `page`).
"""
