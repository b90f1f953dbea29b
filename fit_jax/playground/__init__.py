"""A local web page on which a trained model is asked, compared and tricked; built on the Python API alone."""
