"""From models and trial lists to scores, error rates and figures."""
