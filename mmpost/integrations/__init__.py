"""mmpost inside of other programs."""
