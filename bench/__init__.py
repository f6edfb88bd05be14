"""Measurements: named layers of real networks, a correctness gate, runners, results and the report made from them."""
