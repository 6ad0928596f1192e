"""What is promised of each kind of plugin: a module per kind, a function per promise."""
