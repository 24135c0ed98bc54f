"""The amortised family: a network reads the support in one pass."""
