"""Pipelines for tasks that transformers has none for, one module for each.

`decahub.registry.PIPELINES` lists them; each is registered with transformers once it and `transformers.pipelines` are
loaded. A module here must work as remote code: it imports transformers, and nothing else of decahub.
"""
