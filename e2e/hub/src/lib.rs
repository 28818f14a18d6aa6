//! A mock Hugging Face hub over generated models.
