"""From evaluations to comparisons, tables and the page of the stage `report`."""
