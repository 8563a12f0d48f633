"""One file, one frontend: model file or object to Relax."""
