"""Loop nests that move data: places, slices, joins."""
