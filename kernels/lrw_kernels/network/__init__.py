"""What a network is: operators as data, and the graph they form. No machine, no kernels, no names in C."""
