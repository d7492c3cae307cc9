"""Host-side data: text in, batches out."""
