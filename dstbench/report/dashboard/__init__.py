"""The results of a folder's benchmarks in a browser of this machine, while they run."""
