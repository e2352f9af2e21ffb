"""From trial lists, CSVs and audio files to batches."""
