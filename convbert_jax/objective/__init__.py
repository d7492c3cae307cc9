"""What pre-training optimises, and the folder that a run leaves behind."""
