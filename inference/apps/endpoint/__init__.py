"""Files that a release has for a Hugging Face Inference Endpoint: handler.py and requirements.txt, as uploaded."""
