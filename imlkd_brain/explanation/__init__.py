"""Where speaker models look, and how far such a map can be trusted."""
