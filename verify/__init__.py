"""What must hold: strategies, computed tolerances, laws run on every backend, and tests of everything around them."""
