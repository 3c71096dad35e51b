"""Networks of the ``drive`` family: condition encoder, fusion control, decoder."""
