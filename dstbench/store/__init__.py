"""What is on disk: one folder per cell, one atomic record.

::

    results/<benchmark>/layout.json     the order of the leaderboard, and how rows are compared
    results/<benchmark>/written.json    what the report there was made from
    results/<benchmark>/records.index   of many cells: their records in one file
    results/<benchmark>/cells/<cell id>/
        record.json            the result, with checksums; a cell without one is not finished
        history.csv            loss and speed every few steps
        topology.csv           densities of a sparse cell's layers, and what updates changed
        denoiser.safetensors   the trained network: the averaged weights that are sampled from,
                               packed where they are masked
        sampling.safetensors   what it is sampled with beside that, so that no dataset is needed
        samples.png            a grid of samples
        samples.npy            the same samples, uint8 (n, H, W, C), for the leaderboard's sheet
        reals.npy              a few real images beside which they are shown, in the same form
        neighbours.npy         the training images nearest to the first samples, in the same form
        scores-*.json          records of the same weights under other evaluations
        checkpoint.pt          only while the cell is unfinished; it ends in its checksum
        checkpoint.previous.pt the one before it
        *.damaged              a checkpoint that was not what had been written
        cell.json              what was asked for, before there is a record
        lock, running.json     held by the process that runs the cell; which that is, and its step
        timeout.txt            where a process was when its time limit ended it

A lock is the operating system's: it goes with its process, however that ends.
"""

from dstbench.store.files import write_atomically
from dstbench.store.folder import CellFolder, RecordVersion
from dstbench.store.sealed import DamagedError, load_sealed, save_sealed
from dstbench.store.store import Store

# All that executors need of it, and models that train what cells share.
__all__ = [
    "CellFolder",
    "DamagedError",
    "RecordVersion",
    "Store",
    "load_sealed",
    "save_sealed",
    "write_atomically",
]
