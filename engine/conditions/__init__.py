"""What a frame is made from: noise, embeddings of prompts, pictures, films and maps."""
