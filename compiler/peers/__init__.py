"""One file, one peer that `hybridc bench --against` can run."""
