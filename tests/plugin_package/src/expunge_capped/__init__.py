"""A plug-in of Expunge: the method `capped` and the audit `confidence`."""
