"""Patient subtypes by a deep ensemble clustering, after Chang et al. (2021)."""
