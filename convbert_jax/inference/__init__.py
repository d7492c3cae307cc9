"""A trained model and text in, answers or artefacts out."""
