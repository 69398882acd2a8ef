"""Translations by somebody else: what the rule of finch-rule says, in other languages."""
