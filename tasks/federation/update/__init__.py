"""The update pipeline: what happens to an answer's vector on its way (``pipeline.py``)."""
