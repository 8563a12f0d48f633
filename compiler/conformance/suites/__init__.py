"""One file is one suite of `hybridc conformance`."""
