"""The functions of Python, and what they give back; `preceptor/__init__.py` names them."""
