"""What the rules of products and convolutions share: tiles, packing, the analytic model."""
