"""Environments behind one adapter: every auto-reset dialect ends here."""
