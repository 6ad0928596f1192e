"""``dstbench new``: small installable packages to begin a plugin with."""
