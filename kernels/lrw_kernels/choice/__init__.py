"""Which way a layer is computed: formulas as a prior, timings on this machine where they are wanted and kept."""
