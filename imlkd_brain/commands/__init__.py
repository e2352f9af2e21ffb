"""The verbs of the command ``imlkd``; a module for each group of verbs."""
