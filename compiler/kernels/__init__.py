"""Loop nests of operators, in the layouts that the schedule rules want."""
