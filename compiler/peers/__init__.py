"""The peers that `hybridc bench` knows: one file is one peer."""
