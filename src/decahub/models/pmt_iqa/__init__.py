"""PMT-IQA: blind image quality assessment by progressive multi-task learning (arXiv 2301.01182)."""
